"""Whole models for the training rows, written once for torch and for lazygrad.

A builder takes the namespace (`torch` or `lazygrad`) and returns a module. No dropout, so that
values can be compared; sizes are those of docs/performance.md.
"""

from __future__ import annotations

from typing import Any


def gpt(torch: Any, vocabulary: int = 65, context: int = 256, width: int = 384, heads: int = 6,
        depth: int = 6) -> Any:
    """A character-level GPT: tokens (batch, context) int64 to logits (batch, context, vocabulary).

    Pre-norm blocks, learned positions, exact GELU (Radford et al. 2019).
    """
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(vocabulary, width)
            self.position = nn.Embedding(context, width)
            self.blocks = nn.ModuleList(
                [transformer_block(torch, width, heads, causal=True) for _ in range(depth)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Model()


def transformer_block(torch: Any, width: int, heads: int, causal: bool) -> Any:
    """Attention and a four times wider MLP, each behind a layer norm and beside a residual."""
    nn = torch.nn
    attend = nn.functional.scaled_dot_product_attention

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            q, k, v = (
                part.reshape(batch, length, heads, width // heads).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).chunk(3, -1))
            mixed = attend(q, k, v, is_causal=causal)
            x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
            return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))

    return Block()


def vit(torch: Any, side: int = 224, patch: int = 16, width: int = 192, heads: int = 3,
        depth: int = 12, classes: int = 1000) -> Any:
    """ViT-tiny (Dosovitskiy et al. 2021): images (batch, 3, side, side) to logits."""
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, stride=patch)
            self.first = nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
            self.blocks = nn.Sequential(
                *[transformer_block(torch, width, heads, causal=False) for _ in range(depth)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, classes)

        def forward(self, images: Any) -> Any:
            x = self.patches(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.positions
            return self.head(self.norm(self.blocks(x))[:, 0])

    return Model()


def resnet18(torch: Any, classes: int = 10) -> Any:
    """ResNet-18 with the 3x3 stem for 32x32 images (He et al. 2016, section 4.2's images)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels: int, wider: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(wider)
            self.conv2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(wider)
            self.shortcut = nn.Sequential()
            if stride != 1 or channels != wider:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))

        def forward(self, x: Any) -> Any:
            y = self.bn1(self.conv1(x)).relu()
            return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()

    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for wider, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, wider, stride), Block(wider, wider, 1)]
        channels = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def unet(torch: Any, channels: int = 3, width: int = 32) -> Any:
    """A U-Net of three levels with group norm and SiLU: images to images of the same size."""
    nn = torch.nn

    def double(into: int, out: int) -> Any:
        return nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU(),
                             nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU())

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2 = double(channels, width), double(width, 2 * width)
            self.bottom = double(2 * width, 4 * width)
            self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
            self.join2 = double(4 * width, 2 * width)
            self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
            self.join1 = double(2 * width, width)
            self.last = nn.Conv2d(width, channels, 1)

        def forward(self, x: Any) -> Any:
            pool = nn.functional.max_pool2d
            one = self.down1(x)
            two = self.down2(pool(one, 2))
            x = self.up2(self.bottom(pool(two, 2)))
            x = self.up1(self.join2(torch.cat([x, two], 1)))
            return self.last(self.join1(torch.cat([x, one], 1)))

    return Model()


def dlrm(torch: Any, tables: int = 26, rows: int = 4000, width: int = 32, dense: int = 13) -> Any:
    """A recommender after Naumov et al. 2019: (dense (batch, 13), ids (batch, tables)) to a
    logit: embeddings and a bottom MLP, their pairwise products, a top MLP.
    """
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList([nn.Embedding(rows, width) for _ in range(tables)])
            self.bottom = nn.Sequential(nn.Linear(dense, 256), nn.ReLU(), nn.Linear(256, width),
                                        nn.ReLU())
            pairs = (tables + 1) * tables // 2
            self.top = nn.Sequential(nn.Linear(width + pairs, 256), nn.ReLU(), nn.Linear(256, 1))
            self.row, self.column = (torch.tensor(part) for part in zip(
                *[(i, j) for i in range(tables + 1) for j in range(i)], strict=True))

        def forward(self, numbers: Any, ids: Any) -> Any:
            below = self.bottom(numbers)
            vectors = torch.stack(
                [below] + [table(ids[:, i]) for i, table in enumerate(self.tables)], 1)
            products = vectors @ vectors.transpose(1, 2)
            pairs = products[:, self.row, self.column]
            return self.top(torch.cat([below, pairs], 1)).squeeze(1)

    return Model()

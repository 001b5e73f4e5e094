import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill


def embedding(steps, size):
    rates = torch.exp(-torch.arange(size // 2) * 0.7)
    angles = steps[:, None].float() * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, times):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(2, inputs), nn.SiLU(),
                                   nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(times, 2 * outputs)
        self.norm = nn.GroupNorm(2, outputs, affine=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, times):
        scale, shift = self.time(F.silu(times))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm(self.first(x)) * (1 + scale) + shift
        return self.second(F.silu(hidden)) + self.skip(x)


class Attention(nn.Module):
    def __init__(self, channels, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        scores = torch.einsum("nhdi,nhdj->nhij", q, k) * (c // self.heads) ** -0.5
        mixed = torch.einsum("nhij,nhdj->nhdi", scores.softmax(-1), v).reshape(n, c, h, w)
        return x + self.out(mixed)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.ModuleList([Block(4, 4, 8), Block(4, 8, 8)])
        self.middle = nn.ModuleDict({"block": Block(8, 8, 8), "attention": Attention(8)})
        self.up = nn.ModuleList([Block(16, 4, 8), Block(8, 4, 8)])
        self.leave = nn.Conv2d(4, 1, 1)

    def forward(self, x, steps):
        times, x, kept = embedding(steps, 8), self.enter(x), []
        for block in self.down:
            x = block(x, times)
            kept.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.middle["attention"](self.middle["block"](x, times))
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, kept.pop()], dim=1), times)
        return self.leave(x)


model = fill(UNet())
average = torch.optim.swa_utils.AveragedModel(
    model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
keep = torch.cumprod(1 - torch.linspace(1e-2, 0.3, 10), dim=0)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
images, losses = array(4, 1, 8, 8, seed=5).tanh(), []
for step in range(3):
    when = torch.tensor([1, 4, 7, 9]) - step // 2
    noise = array(4, 1, 8, 8, seed=step)
    level = keep[when][:, None, None, None]
    noisy = level.sqrt() * images + (1 - level).sqrt() * noise
    weight = (level / (1 - level)).clamp(max=5.0)
    loss = (weight * F.mse_loss(model(noisy, when), noise, reduction="none")).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    average.update_parameters(model)
    losses += [loss.item(), norm.item()]

with torch.no_grad():
    x = array(2, 1, 8, 8, seed=9)
    for t in range(9, 5, -1):
        guess = average(x, torch.full((2,), t))
        alpha = keep[t] / keep[t - 1]
        x = (x - (1 - alpha) / (1 - keep[t]).sqrt() * guess) / alpha.sqrt()
        x.clamp_(-3, 3)
print(sum(p.numel() for p in model.parameters()), "parameters")
results = {"losses": losses, "sample": x, "gradient": model.up[0].second.weight.grad}

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from shared import array, fill, ints
from torch.optim import lr_scheduler


class Backbone(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(True),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.fc(torch.flatten(x, 1))


model_conv = fill(Backbone())
for param in model_conv.parameters():
    param.requires_grad = False
num_ftrs = model_conv.fc.in_features
model_conv.fc = nn.Linear(num_ftrs, 2)
fill(model_conv.fc)
print(
    sum(p.numel() for p in model_conv.parameters() if p.requires_grad),
    sum(p.numel() for p in model_conv.parameters()),
)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
optimizer_conv = optim.SGD(
    model_conv.fc.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True
)
exp_lr_scheduler = lr_scheduler.StepLR(optimizer_conv, step_size=2, gamma=0.1)
inputs, labels = array(16, 3, 8, 8), ints(2, 16)
best_acc, best = 0.0, copy.deepcopy(model_conv.state_dict())
frozen = model_conv.features[0].weight.clone()
for epoch in range(3):
    for phase in ["train", "val"]:
        model_conv.train() if phase == "train" else model_conv.eval()
        running_loss, running_corrects = 0.0, 0
        optimizer_conv.zero_grad()
        with torch.set_grad_enabled(phase == "train"):
            outputs = model_conv(inputs)
            _, preds = torch.max(outputs, 1)
            loss = criterion(outputs, labels)
            if phase == "train":
                loss.backward()
                optimizer_conv.step()
        running_loss += loss.item() * inputs.size(0)
        running_corrects += torch.sum(preds == labels.data)
        if phase == "train":
            exp_lr_scheduler.step()
        epoch_acc = running_corrects.double() / len(labels)
        print(f"{phase} Loss: {running_loss / 16:.4f} Acc: {epoch_acc:.4f}")
        if phase == "val" and epoch_acc > best_acc:
            best_acc = epoch_acc
            best = copy.deepcopy(model_conv.state_dict())
model_conv.load_state_dict(best)
assert torch.equal(frozen, model_conv.features[0].weight)
# unfreeze with parameter groups
for p in model_conv.features.parameters():
    p.requires_grad_(True)
opt = optim.AdamW(
    [
        {"params": model_conv.features.parameters(), "lr": 1e-4},
        {"params": model_conv.fc.parameters()},
    ],
    lr=1e-3,
    weight_decay=0.01,
)
for _ in range(2):
    opt.zero_grad(set_to_none=True)
    F.cross_entropy(model_conv(inputs), labels).backward()
    opt.step()
opt.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0})
print([g["lr"] for g in opt.param_groups])
# partial load with missing keys
sd = {k.replace("fc.", "head."): v for k, v in model_conv.state_dict().items()}
result = model_conv.load_state_dict(sd, strict=False)
print(result.missing_keys, result.unexpected_keys)
filtered = {k: v for k, v in sd.items() if k in model_conv.state_dict()}
try:
    Backbone(3).load_state_dict(model_conv.state_dict())
except RuntimeError as e:
    print(str(e).split("\n")[0])
results = dict(sd=dict(model_conv.state_dict()), loss=loss, acc=best_acc, n=len(filtered))

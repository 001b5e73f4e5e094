import os
import tempfile

import torch
from shared import array, fill, ints
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

torch.manual_seed(42)


class Blobs(Dataset):
    def __init__(self, n, train=True):
        self.x = array(n, 1, 8, 8, seed=int(train))
        self.y = (self.x.mean(dim=(1, 2, 3)) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


training_data, test_data = Blobs(256), Blobs(64, False)
batch_size = 64
train_dataloader = DataLoader(training_data, batch_size=batch_size)
test_dataloader = DataLoader(test_data, batch_size=batch_size)
for X, y in test_dataloader:
    print(f"Shape of X [N, C, H, W]: {X.shape}")
    print(f"Shape of y: {y.shape} {y.dtype}")
    break
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
fill(model)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)


def train(dataloader, model, loss_fn, optimizer):
    size = len(dataloader.dataset)
    model.train()
    for batch, (X, y) in enumerate(dataloader):
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 2 == 0:
            loss, current = loss.item(), (batch + 1) * len(X)
            print(f"loss: {loss:>7f}  [{current:>5d}/{size:>5d}]")


def test(dataloader, model, loss_fn):
    size = len(dataloader.dataset)
    num_batches = len(dataloader)
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    test_loss /= num_batches
    correct /= size
    print(f"Test Error: \n Accuracy: {(100 * correct):>0.1f}%, Avg loss: {test_loss:>8f} \n")
    return test_loss


losses = []
for t in range(4):
    print(f"Epoch {t + 1}\n-------------------------------")
    train(train_dataloader, model, loss_fn, optimizer)
    losses.append(test(test_dataloader, model, loss_fn))
    scheduler.step()
print(scheduler.get_last_lr(), optimizer.param_groups[0]["lr"])
with tempfile.TemporaryDirectory() as d:
    path = os.path.join(d, "model.pth")
    torch.save(model.state_dict(), path)
    torch.save(
        {"epoch": 3, "model": model.state_dict(), "opt": optimizer.state_dict(), "loss": losses},
        os.path.join(d, "ck.pt"),
    )
    m2 = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    print(m2.load_state_dict(torch.load(path, weights_only=True)))
    ck = torch.load(os.path.join(d, "ck.pt"), map_location="cpu", weights_only=False)
    o2 = torch.optim.SGD(m2.parameters(), lr=0.3, momentum=0.9)
    o2.load_state_dict(ck["opt"])
    print(ck["epoch"], o2.param_groups[0]["lr"], sorted(o2.state_dict()))
m2.eval()
a, b = random_split(training_data, [200, 56], generator=torch.Generator().manual_seed(1))
tl = DataLoader(
    TensorDataset(array(10, 2), ints(3, 10)), batch_size=4, shuffle=True, drop_last=False
)
print(len(a), len(b), len(tl), sum(len(x) for x, _ in tl))
it = iter(tl)
xb, yb = next(it)
with torch.no_grad():
    results = dict(
        losses=losses,
        same=m2(array(5, 1, 8, 8)),
        sd=dict(m2.state_dict()),
    )
print(optimizer)

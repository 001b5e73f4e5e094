import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill, ints

device = "cuda" if torch.cuda.is_available() else "cpu"
use_amp = device == "cuda"
model = fill(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))).to(device)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler(device, enabled=use_amp)
x, y = array(8, 8), ints(4, 8)
losses = []
for i in range(3):
    with torch.autocast(device_type=device, dtype=torch.bfloat16):
        out = model(x)
        loss = F.cross_entropy(out, y)
    print(out.dtype, loss.dtype)
    opt.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(opt)
    scaler.update()
    losses.append(loss.item())
print(scaler.get_scale(), scaler.is_enabled(), sorted(scaler.state_dict()))
old = torch.cuda.amp.GradScaler(enabled=torch.cuda.is_available())
with torch.cuda.amp.autocast(enabled=False):
    z = model(x)
with torch.autocast("cpu", dtype=torch.bfloat16):
    a, b = array(4, 4), array(4, 4, seed=1)
    mm = a @ b
    s = a + b
    sm = torch.softmax(mm, -1)
    with torch.autocast("cpu", enabled=False):
        inner = a @ b
    cv = F.conv2d(array(1, 2, 5, 5), array(3, 2, 3, 3))
    lin = F.linear(a, b)
    lnm = F.layer_norm(mm, (4,))
    print(
        mm.dtype,
        s.dtype,
        sm.dtype,
        inner.dtype,
        cv.dtype,
        lin.dtype,
        torch.is_autocast_enabled("cpu"),
        lnm.dtype,
        torch.einsum("ij,jk->ik", a, b).dtype,
        torch.bmm(a[None], b[None]).dtype,
        mm.sum().dtype,
        torch.matmul(a, b).dtype,
    )


@torch.autocast("cpu", dtype=torch.bfloat16)
def f(a, b):
    return a.mm(b)


print(f(a, b).dtype)
m16 = model.to(torch.bfloat16)
h = m16(x.bfloat16())
print(h.dtype, h.float().dtype, (h + 1).dtype, (h + torch.ones(1)).dtype, h.half().dtype)
ptdtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
    "bfloat16"
]
from contextlib import nullcontext

ctx = nullcontext() if device == "cpu" else torch.amp.autocast(device_type=device, dtype=ptdtype)
with ctx:
    pass
results = dict(losses=losses, mm=mm, z=z, h=h, sm=sm)

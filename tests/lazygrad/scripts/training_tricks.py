import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill
from torch.nn.utils import (
    clip_grad_norm_,
    parameters_to_vector,
    vector_to_parameters,
)
from torch.optim.swa_utils import SWALR, AveragedModel


class EMA:
    def __init__(self, model, decay):
        self.decay = decay
        self.shadow = {n: p.data.clone() for n, p in model.named_parameters() if p.requires_grad}

    def update(self, model):
        for n, p in model.named_parameters():
            self.shadow[n] = (1.0 - self.decay) * p.data + self.decay * self.shadow[n]


def make():
    return fill(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))


x, y = array(16, 4), array(16, 1, seed=1)
out = {}
S = torch.optim.lr_scheduler
makers = dict(
    step=lambda o: S.StepLR(o, 2, 0.5),
    multi=lambda o: S.MultiStepLR(o, [2, 4], gamma=0.1),
    exp=lambda o: S.ExponentialLR(o, 0.9),
    cos=lambda o: S.CosineAnnealingLR(o, T_max=5, eta_min=1e-5),
    wr=lambda o: S.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2),
    one=lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=6),
    cyc=lambda o: S.CyclicLR(o, 0.001, 0.1, step_size_up=2, cycle_momentum=False),
    poly=lambda o: S.PolynomialLR(o, 5, power=0.9),
    lam=lambda o: S.LambdaLR(o, lr_lambda=lambda e: 0.95**e),
    chain=lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 2), S.ExponentialLR(o, 0.9)]),
)
for name, mk in makers.items():
    model = make()
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    sch = mk(opt)
    lrs = []
    for i in range(5):
        opt.zero_grad()
        F.mse_loss(model(x), y).backward()
        opt.step()
        sch.step()
        lrs.append(opt.param_groups[0]["lr"])
    out[name] = lrs
    out[name + "w"] = model[0].weight
model = make()
ema = EMA(model, 0.9)
swa = AveragedModel(model)
ema2 = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
opt = torch.optim.Adam(model.parameters(), lr=0.01)
swa_s = SWALR(opt, swa_lr=0.005, anneal_epochs=2)
norms = []
accum = 2
for i in range(6):
    loss = F.huber_loss(model(x), y) / accum
    loss.backward()
    if (i + 1) % accum == 0:
        norms.append(clip_grad_norm_(model.parameters(), max_norm=0.1, norm_type=2.0).item())
        opt.step()
        opt.zero_grad()
        ema.update(model)
        swa.update_parameters(model)
        ema2.update_parameters(model)
        swa_s.step()
torch.optim.swa_utils.update_bn([x], swa)
vec = parameters_to_vector(model.parameters())
vector_to_parameters(vec * 0.5, model.parameters())
for opt_name in ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]:
    m = make()
    o = getattr(torch.optim, opt_name)(m.parameters(), lr=0.01)
    for _ in range(3):
        o.zero_grad()
        F.l1_loss(m(x), y).backward()
        o.step()
    out[opt_name] = m[2].weight
es_best, patience, bad = float("inf"), 2, 0
for e in range(5):
    val = F.mse_loss(model(x), y)
    if val < es_best:
        es_best, bad = val, 0
    else:
        bad += 1
        if bad >= patience:
            break
l2 = sum(p.pow(2.0).sum() for p in model.parameters())
l1 = sum(torch.norm(p, 1) for p in model.parameters())
total_norm = (
    torch.norm(
        torch.stack(
            [torch.norm(p.grad.detach(), 2) for p in model.parameters() if p.grad is not None]
        ),
        2,
    )
    if model[0].weight.grad is not None
    else torch.zeros(())
)
wn = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
wn(array(1, 3))
results = dict(
    out,
    norms=norms,
    ema=ema.shadow,
    swa=dict(swa.module.state_dict()),
    ema2=dict(ema2.module.state_dict()),
    vec=vec,
    l1=l1,
    l2=l2,
    tn=total_norm,
)


import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill
from torch.autograd import Function


class LegendrePolynomial3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input**3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        (input,) = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input**2 - 1)


class GradReverse(Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.neg() * ctx.alpha, None


class STE(Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()

    @staticmethod
    def backward(ctx, g):
        return F.hardtanh(g)


class LinearFunction(Function):
    @staticmethod
    def forward(ctx, input, weight, bias=None):
        ctx.save_for_backward(input, weight, bias)
        output = input.mm(weight.t())
        if bias is not None:
            output += bias.unsqueeze(0).expand_as(output)
        return output

    @staticmethod
    def backward(ctx, grad_output):
        input, weight, bias = ctx.saved_tensors
        gi = gw = gb = None
        if ctx.needs_input_grad[0]:
            gi = grad_output.mm(weight)
        if ctx.needs_input_grad[1]:
            gw = grad_output.t().mm(input)
        if bias is not None and ctx.needs_input_grad[2]:
            gb = grad_output.sum(0)
        return gi, gw, gb


torch.autograd.gradcheck(
    LinearFunction.apply,
    (
        torch.randn(3, 4, dtype=torch.double, requires_grad=True),
        torch.randn(2, 4, dtype=torch.double, requires_grad=True),
    ),
    eps=1e-6,
    atol=1e-4,
)
x = torch.linspace(-3.14, 3.14, 50)
a, b, c, d = [torch.full((), v, requires_grad=True) for v in (0.0, -1.0, 0.0, 0.3)]
P3 = LegendrePolynomial3.apply
for t in range(30):
    y_pred = a + b * P3(c + d * x)
    loss = (y_pred - torch.sin(x)).pow(2).sum()
    loss.backward()
    with torch.no_grad():
        for p in (a, b, c, d):
            p -= 5e-5 * p.grad
            p.grad = None
print(f"Result: y = {b.item():.4f} * P3({d.item():.4f} x) and more")
w = array(3, requires_grad=True) if False else array(3).requires_grad_()
GradReverse.apply(w * 2, 0.5).sum().backward()
g1 = w.grad.clone()
w.grad = None
STE.apply(w).mul(3).sum().backward()
g2 = w.grad.clone()
# hooks
model = fill(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
activation = {}


def get_activation(name):
    def hook(model, input, output):
        activation[name] = output.detach()

    return hook


handles = [
    m.register_forward_hook(get_activation(n))
    for n, m in model.named_modules()
    if isinstance(m, nn.Linear)
]
pre = model[0].register_forward_pre_hook(lambda m, inp: (inp[0] * 2,))
grads = {}
bh = model[2].register_full_backward_hook(lambda m, gi, go: grads.update(go=go[0].clone()))
th = model[0].weight.register_hook(lambda g: g * 0.1)
model(array(2, 3)).sum().backward()
for h in handles + [pre, bh, th]:
    h.remove()
# Grad-CAM
cnn = fill(
    nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
)
store = {}
fh = cnn[1].register_forward_hook(
    lambda m, i, o: (
        store.__setitem__("f", o),
        o.register_hook(lambda g: store.__setitem__("g", g)),
    )[0]
)
cnn(array(1, 1, 8, 8))[0, 1].backward()
cam = F.relu((store["f"] * store["g"].mean(dim=(2, 3), keepdim=True)).sum(1))
# weight tying & state dict surgery
enc, dec = nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False)
dec.weight = nn.Parameter(enc.weight.t().clone())
enc.weight = nn.Parameter(torch.ones(3, 4))
sd = model.state_dict()
sd["0.weight"] = torch.cat([sd["0.weight"], torch.zeros(4, 1)], dim=1)
from collections import OrderedDict

new = OrderedDict((k.replace("0.", "first."), v) for k, v in sd.items())


class DP(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.module = m


sd2 = {k[len("module.") :]: v for k, v in DP(model).state_dict().items() if k.startswith("module.")}
model.load_state_dict(sd2)
with torch.no_grad():
    model[0].weight[0] = 1.0
    model[0].weight.copy_(model[0].weight * 0.5)
    model[2].bias.add_(1)
from torch.utils.checkpoint import checkpoint

cx = array(2, 3).requires_grad_()
checkpoint(model, cx, use_reentrant=False).sum().backward()
FGSM = (cx + 0.1 * cx.grad.sign()).clamp(-1, 1).detach()
results = dict(
    loss=loss,
    g1=g1,
    g2=g2,
    act=activation,
    go=grads["go"],
    wg=model[0].weight.grad,
    cam=cam,
    new=dict(new),
    FGSM=FGSM,
)

import torch

x = torch.ones(5)
y = torch.zeros(3)
from shared import array

w = array(5, 3, seed=1).requires_grad_(True)
b = array(3, seed=2)
b.requires_grad = True
z = torch.matmul(x, w) + b
loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
print(f"Gradient function for z = {type(z.grad_fn).__name__ != 'NoneType'}")
loss.backward()
print(w.grad)
with torch.no_grad():
    z = torch.matmul(x, w) + b
print(z.requires_grad)
z_det = (torch.matmul(x, w) + b).detach()
print(z_det.requires_grad)
inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
out.backward(torch.ones_like(out), retain_graph=True)
print(f"First call\n{inp.grad}")
out.backward(torch.ones_like(out), retain_graph=True)
print(f"\nSecond call\n{inp.grad}")
inp.grad.zero_()
out.backward(torch.ones_like(out), retain_graph=True)
print(f"\nCall after zeroing gradients\n{inp.grad}")
# second order
a = torch.tensor([2.0, 3.0], requires_grad=True)
(g,) = torch.autograd.grad((a**3).sum(), a, create_graph=True)
(h,) = torch.autograd.grad(g.sum(), a)
# leaf, retain_grad
v = torch.tensor(2.0, requires_grad=True)
u = v * 3
u.retain_grad()
(u**2).backward()
print(v.is_leaf, u.is_leaf, u.grad, v.grad, v.grad.item())
# manual GD
wd = torch.zeros(2, requires_grad=True)
X, Y = array(50, 2), array(50, seed=3)
for step in range(20):
    l = ((X @ wd - Y) ** 2).mean()
    l.backward()
    with torch.no_grad():
        wd -= 0.1 * wd.grad
        wd.grad.zero_()
    if step % 5 == 0:
        print(step, round(l.item(), 4))


@torch.no_grad()
def evaluate():
    return ((X @ wd - Y) ** 2).mean()


print(evaluate().requires_grad)
with torch.set_grad_enabled(False):
    print((wd * 2).requires_grad)
with torch.inference_mode():
    print((wd * 2).requires_grad)
with torch.autograd.set_detect_anomaly(True):
    q = (a * 2).sum()
    a.grad = None
    q.backward()
J = torch.autograd.functional.jacobian(lambda t: t**2, torch.tensor([1.0, 2.0]))
torch.autograd.backward([(a * a).sum(), (3 * a).sum()])
old = a.grad
a.grad = None
print(a.grad)
print(z.grad_fn, x.requires_grad, (w * 1).grad_fn is not None)
results = dict(wg=w.grad, bg=b.grad, inp=inp.grad, g=g, h=h, wd=wd, ev=evaluate(), J=J, old=old)

import torch
import torch.nn.functional as F
from shared import array
from torch.func import functional_call, grad, hessian, jacfwd, vmap

# MAML: the gradient of the loss after one step, for several tasks at once
model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
weights = {name: array(*parameter.shape, seed=number, scale=0.5)
           for number, (name, parameter) in enumerate(model.named_parameters())}
inputs, phases = array(5, 6, 1, seed=7), array(5, 1, 1, seed=8)
targets = torch.sin(inputs + phases)


def loss(parameters, x, y):
    return F.mse_loss(functional_call(model, parameters, (x,)), y)


def adapted(parameters, x, y):
    gradients = grad(loss)(parameters, x[:3], y[:3])
    return loss({name: value - 0.1 * gradients[name] for name, value in parameters.items()},
                x[3:], y[3:])


losses = []
for _ in range(3):
    each = vmap(grad(adapted), in_dims=(None, 0, 0))(weights, inputs, targets)
    weights = {name: value - 0.05 * each[name].mean(0) for name, value in weights.items()}
    losses.append(vmap(adapted, in_dims=(None, 0, 0))(weights, inputs, targets).mean().item())


# Rosenbrock's function: Newton's direction, then LBFGS
def valley(point):
    return ((1 - point[:-1]) ** 2 + 100 * (point[1:] - point[:-1] ** 2) ** 2).sum()


start = torch.tensor([-1.2, 1.0, 0.5])
newton = torch.linalg.solve(hessian(valley)(start), grad(valley)(start))
jacobian = jacfwd(lambda v: torch.stack([v.prod(), v.sin().sum()]))(start)
point = start.clone().requires_grad_()
optimizer = torch.optim.LBFGS([point], max_iter=25, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    value = valley(point)
    value.backward()
    return value


first = optimizer.step(closure)
optimizer.step(closure)

# writes through views, masks and indices
board = torch.zeros(4, 4)
board.view(2, 2, 2, 2).transpose(1, 2)[1, 0] += torch.eye(2)
board[board.sum(1) == 0] = -1.0
board[[0, 3]] = board[[3, 0]]
board.T[1:, ::2] *= 2
board[..., -1].clamp_(min=0).add_(0.5)
board.diagonal().fill_(7)
flat = board.flatten()
flat[flat > 1] = flat[flat > 1].flip(0) + torch.arange(float((flat > 1).sum()))

print(torch.round(point.detach(), decimals=2).tolist(), board.dtype)
results = {"losses": losses, "newton": newton, "jacobian": jacobian, "first": first.item(),
           "point": point.detach().round(decimals=3), "board": board, "flat": flat}

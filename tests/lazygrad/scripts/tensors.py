import numpy as np
import torch

data = [[1, 2], [3, 4]]
x_data = torch.tensor(data)
np_array = np.array(data)
x_np = torch.from_numpy(np_array)
x_ones = torch.ones_like(x_data)
print(f"Ones Tensor: \n {x_ones} \n")
x_rand = torch.rand_like(x_data, dtype=torch.float)
shape = (
    2,
    3,
)
ones_tensor = torch.ones(shape)
zeros_tensor = torch.zeros(shape)
print(f"Ones Tensor: \n {ones_tensor} \n")
print(f"Zeros Tensor: \n {zeros_tensor}")
tensor = torch.rand(3, 4)
print(f"Shape of tensor: {tensor.shape}")
print(f"Datatype of tensor: {tensor.dtype}")
print(f"Device tensor is stored on: {tensor.device}")
if torch.cuda.is_available():
    tensor = tensor.to("cuda")
if hasattr(torch, "accelerator") and torch.accelerator.is_available():
    tensor = tensor.to(torch.accelerator.current_accelerator())
tensor = torch.ones(4, 4)
print(f"First row: {tensor[0]}")
print(f"First column: {tensor[:, 0]}")
print(f"Last column: {tensor[..., -1]}")
tensor[:, 1] = 0
print(tensor)
t1 = torch.cat([tensor, tensor, tensor], dim=1)
print(t1)
y1 = tensor @ tensor.T
y2 = tensor.matmul(tensor.T)
y3 = torch.rand_like(y1)
torch.matmul(tensor, tensor.T, out=y3)
z1 = tensor * tensor
z3 = torch.rand_like(tensor)
torch.mul(tensor, tensor, out=z3)
agg = tensor.sum()
agg_item = agg.item()
print(agg_item, type(agg_item))
print(f"{tensor} \n")
tensor.add_(5)
print(tensor)
t = torch.ones(5)
print(f"t: {t}")
n = t.numpy()
print(f"n: {n}")
n = np.ones(5)
t = torch.from_numpy(n)
a = torch.arange(12).reshape(3, 4)
print(a, a.stride(), a.t().stride(), a.is_contiguous(), a.t().is_contiguous())
print(a.view(-1, 6), a.size(), a.size(0), a.ndim, a.numel(), a.element_size(), a.nelement())
print(torch.linspace(0, 1, 5), torch.logspace(0, 2, 3), torch.eye(3), torch.full((2, 2), 7.5))
print(
    torch.tensor(3.14159),
    torch.tensor([1e10, 1.0]),
    torch.tensor([1e-5, 1.0]),
    torch.tensor([]),
    torch.empty(0, 3),
)
print(
    torch.tensor([True, False]),
    torch.tensor([1 + 2j, 3.5j]),
    torch.tensor([float("nan"), float("inf"), -1.0]),
)
print(torch.arange(2000), torch.zeros(100, 100))
print(
    torch.tensor([1.5, 2.5], dtype=torch.float64),
    torch.tensor([1, 2], dtype=torch.uint8),
    torch.tensor([1.0], requires_grad=True),
)
print(torch.tensor([1.0, 2.0], requires_grad=True) * 2)
print(
    [torch.tensor(1), torch.tensor(2.5)],
    {"loss": torch.tensor(0.5)},
    f"{torch.tensor(0.123456):.3f}",
    f"{torch.tensor(3):d}",
)
print(
    torch.float32,
    torch.int64,
    torch.device("cpu"),
    torch.Size([1, 2]),
    a.dtype,
    a.type(),
    a.device.type,
)
b, (c, d) = a.clone(), a.split([1, 3], dim=1)
for row in a:
    print(row.tolist())
print(len(a), 5 in a, bool(a.any()), int(a.sum()), float(a.float().mean()), a.float().std())
torch.set_printoptions(precision=2, sci_mode=False)
print(torch.tensor([1234.5678, 0.001]))
torch.set_printoptions(profile="default")
print(torch.__version__ is not None)
print(
    torch.is_tensor(a),
    isinstance(a, torch.Tensor),
    isinstance(a, torch.LongTensor),
    torch.FloatTensor([1, 2]),
    torch.Tensor(2, 3).shape,
    torch.LongTensor([3, 4]),
)
results = dict(x_ones=x_ones, y1=y1, y3=y3, z3=z3, t1=t1, agg=agg, x_np=x_np, c=c, d=d)

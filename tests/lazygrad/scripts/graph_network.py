
import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill, ints
from torch.nn.parameter import Parameter

N = 12
edge_index = torch.stack([ints(N, 40), ints(N, 40, seed=1)])


def add_self_loops(edge_index, num_nodes):
    loop = torch.arange(0, num_nodes, dtype=torch.long, device=edge_index.device)
    return torch.cat([edge_index, loop.unsqueeze(0).repeat(2, 1)], dim=1)


def degree(index, num_nodes, dtype):
    return torch.zeros(num_nodes, dtype=dtype, device=index.device).scatter_add_(
        0, index, torch.ones(index.size(0), dtype=dtype)
    )


def scatter(src, index, dim_size, reduce="sum"):
    idx = index.view(-1, *([1] * (src.dim() - 1))).expand_as(src)
    if reduce == "sum":
        return src.new_zeros(dim_size, *src.shape[1:]).index_add_(0, index, src)
    if reduce == "mean":
        c = torch.bincount(index, minlength=dim_size).clamp(min=1).to(src.dtype)
        return scatter(src, index, dim_size) / c.view(-1, 1)
    return src.new_zeros(dim_size, *src.shape[1:]).scatter_reduce_(
        0, idx, src, reduce="amax", include_self=False
    )


class GCNConv(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.lin = nn.Linear(i, o, bias=False)
        self.bias = Parameter(torch.empty(o))
        self.reset_parameters()

    def reset_parameters(self):
        self.lin.reset_parameters()
        self.bias.data.zero_()

    def forward(self, x, edge_index):
        edge_index = add_self_loops(edge_index, x.size(0))
        x = self.lin(x)
        row, col = edge_index
        deg = degree(col, x.size(0), x.dtype)
        dis = deg.pow(-0.5)
        dis[dis == float("inf")] = 0
        norm = dis[row] * dis[col]
        return scatter(norm.view(-1, 1) * x[row], col, x.size(0)) + self.bias


class GAT(nn.Module):
    def __init__(self, i, o, heads):
        super().__init__()
        self.heads, self.o = heads, o
        self.lin = nn.Linear(i, heads * o, bias=False)
        self.att_src = Parameter(torch.Tensor(1, heads, o))
        self.att_dst = Parameter(torch.Tensor(1, heads, o))
        nn.init.xavier_uniform_(self.att_src)
        nn.init.xavier_uniform_(self.att_dst)

    def forward(self, x, ei):
        h = self.lin(x).view(-1, self.heads, self.o)
        a = (h * self.att_src).sum(-1)[ei[0]] + (h * self.att_dst).sum(-1)[ei[1]]
        a = F.leaky_relu(a, 0.2)
        mx = scatter(a.detach(), ei[1], x.size(0), "max")
        e = (a - mx[ei[1]]).exp()
        s = scatter(e, ei[1], x.size(0))
        alpha = e / (s[ei[1]] + 1e-16)
        return scatter(h[ei[0]] * alpha.unsqueeze(-1), ei[1], x.size(0)).flatten(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = GCNConv(6, 8), GAT(8, 3, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x, ei):
        x = F.dropout(F.elu(self.c1(x, ei)), p=0.0, training=self.training)
        return F.log_softmax(self.head(self.c2(x, ei)), dim=-1)


model = fill(Net())
x, y = array(N, 6), ints(3, N)
train_mask = torch.zeros(N, dtype=torch.bool)
train_mask[:8] = True
opt = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
losses = []
for _ in range(4):
    opt.zero_grad()
    out = model(x, edge_index)
    loss = F.nll_loss(out[train_mask], y[train_mask])
    loss.backward()
    opt.step()
    losses.append(loss.item())
pred = out.argmax(dim=1)
acc = int((pred[~train_mask] == y[~train_mask]).sum()) / int((~train_mask).sum())
# sparse adjacency
adj = torch.zeros(N, N)
adj[edge_index[0], edge_index[1]] = 1
deg = adj.sum(1)
lap = torch.diag(deg) - adj
pooled = scatter(x, torch.tensor([0] * 5 + [1] * 7), 2, "mean")
results = dict(losses=losses, lap=lap, pooled=pooled, acc=acc)

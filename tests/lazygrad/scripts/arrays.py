import torch
import torch.nn.functional as F
from shared import array, ints

a, b = array(3, 4), array(4, 5)
B1, B2 = array(2, 3, 4), array(2, 4, 5)
r = {}
r["mm"] = torch.einsum("ij,jk->ik", a, b)
r["mm2"] = torch.einsum("ij,jk", a, b)
r["tr"] = torch.einsum("ii", array(4, 4))
r["diag"] = torch.einsum("ii->i", array(4, 4))
r["bmm"] = torch.einsum("bij,bjk->bik", B1, B2)
r["ell"] = torch.einsum("...ij,...jk->...ik", B1, B2)
r["outer"] = torch.einsum("i,j->ij", a[0], b[0])
r["bil"] = torch.einsum("bn,anm,bm->ba", array(2, 3), array(5, 3, 4), array(2, 4))
r["sum"] = torch.einsum("ij->j", a)
r["perm"] = torch.einsum("ijk->kji", B1)
r["attn"] = torch.einsum("bhqd,bhkd->bhqk", array(2, 2, 3, 4), array(2, 2, 5, 4))
r["td"] = torch.tensordot(B1, B2, dims=([2], [1]))
r["kron"] = torch.kron(a, b)
r["chain"] = torch.chain_matmul(a, b, b.T) if hasattr(torch, "chain_matmul") else a @ b @ b.T
r["md"] = torch.linalg.multi_dot([a, b, b.T])
# masked ops
x = array(4, 6)
m = x > 0
r["mf"] = x.masked_fill(~m, -1e9).softmax(-1)
r["ms"] = x[m]
r["msel"] = torch.masked_select(x, m)
y = x.clone()
y[m] = 0
y[~m] *= 2
r["y"] = y
r["where"] = torch.where(m, x, torch.zeros_like(x))
r["where2"] = torch.where(x > 0.5, 1.0, x)
r["nz"] = torch.nonzero(m)
r["nzt"] = torch.where(m)
r["cnt"] = m.sum(1)
r["any"] = m.any(0)
r["all"] = m.all(dim=1, keepdim=True)
lens = torch.tensor([3, 1, 6, 4])
lm = torch.arange(6)[None, :] < lens[:, None]
r["mm_"] = (x * lm).sum(1) / lm.sum(1)
r["last"] = x[torch.arange(4), lens - 1]
r["msc"] = x.clone().masked_scatter_(m, torch.arange(24.0))
r["tri"] = torch.tril(torch.ones(4, 4)).bool()
r["triu"] = torch.triu_indices(3, 3, 1)
# complex FFT filter
s = array(64)
sp = torch.fft.rfft(s)
fr = torch.fft.rfftfreq(64, d=1 / 64)
sp[fr > 10] = 0
r["lp"] = torch.fft.irfft(sp, n=64)
img = array(8, 8)
f2 = torch.fft.fftshift(torch.fft.fft2(img))
mask = torch.zeros(8, 8)
mask[2:6, 2:6] = 1
r["img"] = torch.fft.ifft2(torch.fft.ifftshift(f2 * mask)).real
r["pw"] = f2.abs().log1p()
r["ph"] = torch.polar(torch.ones(3), torch.arange(3.0))
r["vr"] = torch.view_as_real(sp[:4])
q = array(2, 3, 4)
qc = torch.view_as_complex(q.reshape(2, 3, 2, 2))
fc = torch.polar(torch.ones(3, 2), torch.outer(torch.arange(3.0), torch.tensor([1.0, 0.1])))
r["rope"] = torch.view_as_real(qc * fc).flatten(2)
cw = (array(3, 3) + 1j * array(3, 3, seed=2)).requires_grad_()
(cw @ cw.conj().T).abs().sum().backward()
r["cg"] = cw.grad
# sorting/statistics
v = ints(6, 30)
f = array(30, seed=5)
r["uq"] = torch.unique(v, return_inverse=True, return_counts=True)
r["bc"] = torch.bincount(v, minlength=8)
r["bw"] = torch.bincount(v, weights=f)
r["h"] = torch.histc(f, 5, -2, 2)
sv, si = f.sort()
r["sv"] = sv
r["si"] = si
r["tk"] = torch.topk(f, 3).indices
r["kv"] = f.kthvalue(4).values
r["med"] = f.median()
r["mode"] = torch.mode(v).values
r["q"] = torch.quantile(f, torch.tensor([0.25, 0.5]))
r["as"] = torch.argsort(f)
r["ss"] = torch.searchsorted(sv, torch.tensor([0.0, 0.5]))
r["bk"] = torch.bucketize(f, torch.tensor([-1.0, 0.0, 1.0]))
r["cs"] = f.cumsum(0)
r["cp"] = torch.cumprod(f[:5], 0)
r["cm"] = torch.cummax(f, 0).values
r["std"] = torch.std_mean(f)
r["cc"] = torch.corrcoef(array(3, 20))
r["uc"] = torch.unique_consecutive(v)
r["ls"] = torch.logsumexp(x, 1)
r["diff"] = torch.diff(f[:6])
r["isin"] = torch.isin(v, torch.tensor([1, 2]))
r["flip"] = f.flip(0)
r["hist"] = torch.histogram(f, 4)[0]
r["nan"] = torch.nanmean(torch.tensor([1.0, float("nan"), 3.0]))
r["cart"] = torch.cartesian_prod(torch.arange(2), torch.arange(3))
r["comb"] = torch.combinations(torch.arange(4))
r["mg"] = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")[0]
r["roll"] = torch.roll(x, 1, 0)
r["trap"] = torch.trapezoid(f[:5])
r["rint"] = torch.repeat_interleave(torch.arange(3), torch.tensor([1, 2, 3]))
r["oh"] = F.one_hot(v[:4], 6)
r["take"] = torch.take_along_dim(x, x.argsort(1), 1)
r["cdist"] = torch.cdist(x, x)
r["pd"] = F.pairwise_distance(x, x + 1)
r["norm"] = F.normalize(x, dim=1)
conf = torch.zeros(6, 6, dtype=torch.long)
conf.index_put_((v[:15], v[15:]), torch.tensor(1), accumulate=True)
r["conf"] = conf
boxes = array(5, 4).abs()
boxes[:, 2:] += boxes[:, :2]
area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
lt = torch.max(boxes[:, None, :2], boxes[:, :2])
rb = torch.min(boxes[:, None, 2:], boxes[:, 2:])
wh = (rb - lt).clamp(min=0)
inter = wh[..., 0] * wh[..., 1]
r["iou"] = inter / (area[:, None] + area - inter)
keep, order = [], area.argsort(descending=True)
while order.numel() > 0:
    i = order[0]
    keep.append(i.item())
    if order.numel() == 1:
        break
    order = order[1:][r["iou"][i, order[1:]] <= 0.3]
r["keep"] = keep
results = r

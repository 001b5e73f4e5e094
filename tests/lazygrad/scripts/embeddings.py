import collections

import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill, ints

# word2vec skip gram with negative sampling
corpus = ["we", "are", "about", "to", "study", "the", "idea", "of", "a", "computational", "process", ".", "people", "create", "programs", "to", "direct", "processes"]
counts = collections.Counter(corpus)
word_to_ix = {w: i for i, w in enumerate(sorted(counts))}
V = len(word_to_ix)
freq = torch.tensor([counts[w] for w in sorted(counts)], dtype=torch.float) ** 0.75
freq /= freq.sum()
neg = torch.multinomial(freq, 5, replacement=True)
print(neg.shape, neg.dtype)


class SkipGram(nn.Module):
    def __init__(self, V, D):
        super().__init__()
        self.u = nn.Embedding(V, D, sparse=False)
        self.v = nn.Embedding(V, D)
        self.u.weight.data.uniform_(-0.5 / D, 0.5 / D)
        self.v.weight.data.zero_()

    def forward(self, c, o, n):
        cu, ov, nv = self.u(c), self.v(o), self.v(n)
        pos = F.logsigmoid((cu * ov).sum(1))
        negs = F.logsigmoid(-torch.bmm(nv, cu.unsqueeze(2)).squeeze(2)).sum(1)
        return -(pos + negs).mean()


m = fill(SkipGram(V, 6))
pairs = [
    (word_to_ix[corpus[i]], word_to_ix[corpus[i + d]])
    for i in range(2, len(corpus) - 2)
    for d in (-2, -1, 1, 2)
]
C, O = torch.LongTensor(pairs).unbind(1)
N = ints(V, len(pairs), 5)
opt = torch.optim.SGD(m.parameters(), lr=0.5)
l1 = []
for e in range(5):
    loss = m(C, O, N)
    opt.zero_grad()
    loss.backward()
    opt.step()
    l1.append(loss.item())
sim = F.cosine_similarity(m.u.weight[:1], m.u.weight, dim=1)
near = sim.argsort(descending=True)[:3]
nearw = [sorted(counts)[i] for i in near]


# N-gram
class NGram(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(V, 5)
        self.linear1 = nn.Linear(10, 16)
        self.linear2 = nn.Linear(16, V)

    def forward(self, inputs):
        embeds = self.embeddings(inputs).view((1, -1))
        return F.log_softmax(self.linear2(F.relu(self.linear1(embeds))), dim=1)


ng = fill(NGram())
og = torch.optim.SGD(ng.parameters(), lr=0.01)
lf = nn.NLLLoss()
trigrams = [([corpus[i - j - 1] for j in range(2)], corpus[i]) for i in range(2, len(corpus))]
total_loss = 0
for context, target in trigrams:
    idxs = torch.tensor([word_to_ix[w] for w in context], dtype=torch.long)
    ng.zero_grad()
    loss = lf(ng(idxs), torch.tensor([word_to_ix[target]], dtype=torch.long))
    loss.backward()
    og.step()
    total_loss += loss.item()


# matrix factorisation
class MF(nn.Module):
    def __init__(self, users, items, k=4):
        super().__init__()
        self.p, self.q = nn.Embedding(users, k), nn.Embedding(items, k)
        self.bu, self.bi = nn.Embedding(users, 1), nn.Embedding(items, 1)
        self.mu = nn.Parameter(torch.tensor(3.0))

    def forward(self, u, i):
        return (
            (self.p(u) * self.q(i)).sum(1) + self.bu(u).squeeze() + self.bi(i).squeeze() + self.mu
        )


mf = fill(MF(20, 30))
om = torch.optim.Adagrad(mf.parameters(), lr=0.1)
u, i, r = ints(20, 100), ints(30, 100, seed=1), ints(5, 100, seed=2).float() + 1
for e in range(10):
    loss = F.mse_loss(mf(u, i), r)
    om.zero_grad()
    loss.backward()
    om.step()


# DLRM with embedding bags
class DLRM(nn.Module):
    def __init__(self):
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(n, 4, mode="sum") for n in (10, 20, 30)])
        self.bot = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, dense, offsets, indices):
        x = self.bot(dense)
        ly = [b(ix, off) for b, ix, off in zip(self.bags, indices, offsets)]
        T = torch.cat([x] + ly, dim=1).view((x.size(0), -1, x.size(1)))
        Z = torch.bmm(T, torch.transpose(T, 1, 2))
        li = torch.tensor([i for i in range(4) for j in range(i)])
        lj = torch.tensor([j for i in range(4) for j in range(i)])
        return self.top(torch.cat([x, Z[:, li, lj]], dim=1)).squeeze(1)


dl = fill(DLRM())
dense, y = array(6, 5), (array(6) > 0).float()
offs = [torch.arange(0, 12, 2)] * 3
idx = [ints(n, 12, seed=n) for n in (10, 20, 30)]
od = torch.optim.SGD(dl.parameters(), lr=0.1)
for _ in range(3):
    loss_d = F.binary_cross_entropy_with_logits(dl(dense, offs, idx), y)
    od.zero_grad()
    loss_d.backward()
    od.step()
results = dict(l1=l1, sim=sim, total=total_loss, mf=loss, d=loss_d, nearw=len(nearw))

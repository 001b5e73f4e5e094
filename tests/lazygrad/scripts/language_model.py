import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill

text = "the quick brown fox jumps over the lazy dog . " * 10
vocab = sorted(set(text.split()))
stoi = {w: i for i, w in enumerate(vocab)}
ids = torch.tensor([stoi[w] for w in text.split()], dtype=torch.long)


def batchify(data, bsz):
    nbatch = data.size(0) // bsz
    data = data.narrow(0, 0, nbatch * bsz)
    return data.view(bsz, -1).t().contiguous()


def get_batch(source, i, bptt=6):
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


class RNNModel(nn.Module):
    def __init__(self, ntoken, ninp=12, nhid=12, nlayers=2, dropout=0.0, tie_weights=True):
        super().__init__()
        self.ntoken = ntoken
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        if tie_weights:
            self.decoder.weight = self.encoder.weight
        self.nhid, self.nlayers = nhid, nlayers

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return F.log_softmax(decoded, dim=1), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        return (
            weight.new_zeros(self.nlayers, bsz, self.nhid),
            weight.new_zeros(self.nlayers, bsz, self.nhid),
        )


def repackage_hidden(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


model = fill(RNNModel(len(vocab)))
print(model, len(list(model.parameters())))
train_data = batchify(ids, 4)
criterion = nn.NLLLoss()
lr = 2.0
ppl = []
for epoch in range(3):
    model.train()
    hidden = model.init_hidden(4)
    total_loss = 0.0
    for batch, i in enumerate(range(0, train_data.size(0) - 1, 6)):
        data, targets = get_batch(train_data, i)
        model.zero_grad()
        hidden = repackage_hidden(hidden)
        output, hidden = model(data, hidden)
        loss = criterion(output, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-lr)
        total_loss += loss.item()
    ppl.append(math.exp(total_loss / (batch + 1)))
model.eval()
hidden = model.init_hidden(1)
inp = torch.zeros(1, 1, dtype=torch.long)
words = []
with torch.no_grad():
    for _ in range(10):
        output, hidden = model(inp, hidden)
        word_weights = output.squeeze().div(1.0).exp().cpu()
        word_idx = torch.multinomial(word_weights, 1)[0]
        inp.fill_(word_idx)
        words.append(vocab[word_idx])
print(len(words))
# packed sequences
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

seqs = [array(n, 3, seed=n) for n in (4, 2, 3)]
padded = pad_sequence(seqs, batch_first=True)
packed = pack_padded_sequence(
    padded, torch.tensor([4, 2, 3]), batch_first=True, enforce_sorted=False
)
gru = fill(nn.GRU(3, 5, batch_first=True, bidirectional=True))
out, h = gru(packed)
unpacked, lengths = pad_packed_sequence(out, batch_first=True)
cell = fill(nn.LSTMCell(3, 4))
hx, cx = cell(array(2, 3))
results = dict(ppl=ppl, unpacked=unpacked, lengths=lengths, h=h, hx=hx, w=model.encoder.weight)

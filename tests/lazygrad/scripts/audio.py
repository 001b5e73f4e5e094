import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from shared import array, fill
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

# a noisy chirp, its spectrogram in decibels, and mel bands
rate, count = 800, 640
time = torch.arange(count) / rate
signal = torch.sin(2 * math.pi * (20 + 60 * time) * time) + 0.05 * array(count)
window = torch.hann_window(64)
spectrum = torch.stft(signal, 64, hop_length=16, window=window, return_complex=True)
power = spectrum.abs().pow(2)
decibels = 10 * torch.log10(power.clamp(min=1e-6))
decibels = decibels - decibels.max()
peaks = power.argmax(0)


def mel(frequency):
    return 2595.0 * torch.log10(1.0 + frequency / 700.0)


edges = torch.linspace(0.0, mel(torch.tensor(rate / 2)).item(), 10)
edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
bins = torch.linspace(0, rate / 2, 33)
up = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
down = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
bank = torch.minimum(up, down).clamp_(min=0)
bands = torch.log1p(torch.einsum("mf,ft->mt", bank, power))

# a filter learnt in the frequency domain, through complex numbers
target = torch.fft.irfft(torch.fft.rfft(signal) * (torch.fft.rfftfreq(count, 1 / rate) < 60), n=count)
gain = torch.zeros(count // 2 + 1, 2, requires_grad=True)
optimizer = torch.optim.SGD([gain], lr=50.0, momentum=0.5)
losses = []
for _ in range(5):
    response = torch.view_as_complex(gain) + 1
    filtered = torch.fft.irfft(torch.fft.rfft(signal) * response, n=count)
    loss = F.mse_loss(filtered, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
again = torch.istft(spectrum, 64, 16, window=window, length=count)

# frames of several lengths through a packed LSTM
clips = [bands.T[:9], bands.T[:4], bands.T[5:12]]
lengths = torch.tensor([len(clip) for clip in clips])
lstm = fill(nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True))
packed = pack_padded_sequence(pad_sequence(clips, batch_first=True), lengths, batch_first=True,
                              enforce_sorted=False)
outputs, (hidden, _) = lstm(packed)
outputs, seen = pad_packed_sequence(outputs, batch_first=True)
inside = torch.arange(outputs.size(1))[None] < seen[:, None]
outputs.masked_fill(~inside[..., None], 0).pow(2).sum().backward()

print("frames", tuple(spectrum.shape), spectrum.dtype, peaks.tolist()[:5])
results = {"decibels": decibels, "bands": bands, "losses": losses, "gain": gain, "again": again,
           "outputs": outputs, "hidden": hidden, "seen": seen,
           "gradient": lstm.weight_hh_l1_reverse.grad}

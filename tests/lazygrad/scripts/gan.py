import numpy as np
import torch
import torch.nn as nn
from shared import array, fill

torch.manual_seed(0)
np.random.seed(0)
latent_dim = 8


class Generator(nn.Module):
    def __init__(self):
        super().__init__()

        def block(i, o, normalize=True):
            layers = [nn.Linear(i, o)]
            if normalize:
                layers.append(nn.BatchNorm1d(o, 0.8))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            return layers

        self.model = nn.Sequential(
            *block(latent_dim, 16, normalize=False), *block(16, 32), nn.Linear(32, 16), nn.Tanh()
        )

    def forward(self, z):
        return self.model(z).view(z.size(0), 1, 4, 4)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(16, 32), nn.LeakyReLU(0.2, inplace=True), nn.Linear(32, 1), nn.Sigmoid()
        )

    def forward(self, img):
        return self.model(img.view(img.size(0), -1))


adversarial_loss = torch.nn.BCELoss()
generator, discriminator = fill(Generator()), fill(Discriminator(), 5)
optimizer_G = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor
hist = []
for i in range(8):
    imgs = array(16, 1, 4, 4, seed=i).tanh()
    valid = torch.autograd.Variable(Tensor(imgs.size(0), 1).fill_(1.0), requires_grad=False)
    fake = torch.autograd.Variable(Tensor(imgs.size(0), 1).fill_(0.0), requires_grad=False)
    real_imgs = torch.autograd.Variable(imgs.type(Tensor))
    optimizer_G.zero_grad()
    z = array(16, latent_dim, seed=100 + i)
    gen_imgs = generator(z)
    g_loss = adversarial_loss(discriminator(gen_imgs), valid)
    g_loss.backward()
    optimizer_G.step()
    optimizer_D.zero_grad()
    real_loss = adversarial_loss(discriminator(real_imgs), valid)
    fake_loss = adversarial_loss(discriminator(gen_imgs.detach()), fake)
    d_loss = (real_loss + fake_loss) / 2
    d_loss.backward()
    optimizer_D.step()
    print("[Batch %d] [D loss: %f] [G loss: %f]" % (i, d_loss.item(), g_loss.item()))
    hist.append((d_loss.item(), g_loss.item()))
# WGAN-GP penalty, double backward
real, fakes = array(16, 1, 4, 4), generator(z).detach()
alpha = torch.sigmoid(array(16, 1, 1, 1, seed=9))
inter = (alpha * real + (1 - alpha) * fakes).requires_grad_(True)
d_inter = discriminator(inter)
grads = torch.autograd.grad(
    outputs=d_inter,
    inputs=inter,
    grad_outputs=torch.ones_like(d_inter),
    create_graph=True,
    retain_graph=True,
    only_inputs=True,
)[0]
grads = grads.view(grads.size(0), -1)
gp = ((grads.norm(2, dim=1) - 1) ** 2).mean()
discriminator.zero_grad()
gp.backward()
for p in discriminator.parameters():
    p.data.clamp_(-0.1, 0.1)
# spectral norm
sn = torch.nn.utils.spectral_norm(nn.Linear(4, 4))
sn(array(2, 4))
results = dict(
    hist=hist,
    gp=gp,
    g=[p.grad for p in discriminator.parameters()][0],
    w=discriminator.model[0].weight,
)

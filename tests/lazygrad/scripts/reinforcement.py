import math
import random
from collections import deque, namedtuple
from itertools import count

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from shared import fill

Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class ReplayMemory:
    def __init__(self, capacity):
        self.memory = deque(maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


class Env:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def reset(self):
        self.s = self.rng.normal(size=4).astype(np.float32)
        self.t = 0
        return self.s

    def step(self, a):
        self.s = (self.s * 0.9 + (a - 0.5) * 0.1 + self.rng.normal(size=4) * 0.1).astype(np.float32)
        self.t += 1
        return self.s, float(-abs(self.s[0])), self.t >= 8 or self.s[1] > 2


class DQN(nn.Module):
    def __init__(self, n_observations, n_actions):
        super().__init__()
        self.layer1 = nn.Linear(n_observations, 16)
        self.layer2 = nn.Linear(16, 16)
        self.layer3 = nn.Linear(16, n_actions)

    def forward(self, x):
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


random.seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH, GAMMA, TAU = 16, 0.99, 0.005
policy_net, target_net = fill(DQN(4, 2)).to(device), DQN(4, 2).to(device)
target_net.load_state_dict(policy_net.state_dict())
optimizer = optim.AdamW(policy_net.parameters(), lr=1e-3, amsgrad=True)
memory = ReplayMemory(1000)
steps_done = 0


def select_action(state):
    global steps_done
    eps = 0.05 + 0.85 * math.exp(-1.0 * steps_done / 100)
    steps_done += 1
    if random.random() > eps:
        with torch.no_grad():
            return policy_net(state).max(1).indices.view(1, 1)
    return torch.tensor([[random.randrange(2)]], device=device, dtype=torch.long)


last = None


def optimize_model():
    global last
    if len(memory) < BATCH:
        return
    batch = Transition(*zip(*memory.sample(BATCH)))
    non_final_mask = torch.tensor(
        tuple(map(lambda s: s is not None, batch.next_state)), device=device, dtype=torch.bool
    )
    non_final_next_states = torch.cat([s for s in batch.next_state if s is not None])
    state_batch, action_batch, reward_batch = (
        torch.cat(batch.state),
        torch.cat(batch.action),
        torch.cat(batch.reward),
    )
    q = policy_net(state_batch).gather(1, action_batch)
    next_state_values = torch.zeros(BATCH, device=device)
    with torch.no_grad():
        next_state_values[non_final_mask] = target_net(non_final_next_states).max(1).values
    expected = (next_state_values * GAMMA) + reward_batch
    loss = nn.SmoothL1Loss()(q, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    last = loss.item()


env = Env()
for ep in range(3):
    state = torch.tensor(env.reset(), dtype=torch.float32, device=device).unsqueeze(0)
    for t in count():
        action = select_action(state)
        obs, reward, done = env.step(action.item())
        reward = torch.tensor([reward], device=device)
        next_state = (
            None if done else torch.tensor(obs, dtype=torch.float32, device=device).unsqueeze(0)
        )
        memory.push(state, action, next_state, reward)
        state = next_state
        optimize_model()
        tsd, psd = target_net.state_dict(), policy_net.state_dict()
        for key in psd:
            tsd[key] = psd[key] * TAU + tsd[key] * (1 - TAU)
        target_net.load_state_dict(tsd)
        if done:
            break
# REINFORCE
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 16)
        self.affine2 = nn.Linear(16, 2)
        self.saved_log_probs, self.rewards = [], []

    def forward(self, x):
        return F.softmax(self.affine2(F.relu(self.affine1(x))), dim=1)


policy = fill(Policy())
opt = optim.Adam(policy.parameters(), lr=1e-2)
eps = np.finfo(np.float32).eps.item()
for ep in range(2):
    s = env.reset()
    for t in range(6):
        state = torch.from_numpy(s).float().unsqueeze(0)
        m = Categorical(policy(state))
        a = m.sample()
        fixed = torch.tensor([t % 2])
        policy.saved_log_probs.append(m.log_prob(fixed))
        s, r, d = env.step(fixed.item())
        policy.rewards.append(r)
    R, policy_loss, returns = 0, [], deque()
    for r in policy.rewards[::-1]:
        R = r + 0.99 * R
        returns.appendleft(R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + eps)
    for lp, R in zip(policy.saved_log_probs, returns):
        policy_loss.append(-lp * R)
    opt.zero_grad()
    policy_loss = torch.cat(policy_loss).sum()
    policy_loss.backward()
    opt.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]
print(m.entropy().shape, m.probs.shape, a.shape)
results = dict(last=last, pl=policy_loss, w=policy.affine2.weight, n=steps_done, ent=m.entropy())

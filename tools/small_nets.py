"""Training and files of the small networks that look at pictures of the little world."""

import torch
from safetensors.torch import load_file, save_file


def fit(net, loss_of, steps, rate, peak, decay):
    """Trains `net` on the losses that `loss_of` gives for the numbers of the steps."""
    opt = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, peak, steps)
    for step in range(steps):
        loss = loss_of(step)
        opt.zero_grad()
        loss.backward()
        opt.step()
        plan.step()
        if step % 200 == 0:
            print(f"step {step} of {steps} loss {loss.item():.4f}", flush=True)


def save(net, file, made_by, seed):
    state = {k: v.half().contiguous() for k, v in net.state_dict().items()}
    save_file(state, file, metadata={"made_by": made_by, "seed": str(seed), "torch": torch.__version__})
    file.chmod(0o644)


def load(net, file):
    net.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    return net.eval()

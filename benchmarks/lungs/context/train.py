"""Trains the two networks of lung_ct_context, for every fold, within a given time on one GPU.

    python benchmarks/lungs/context/silver.py --data ../shared/data --out runs/context
    python benchmarks/lungs/context/train.py --cases runs/context/cases.npz --out runs/context --seconds 448

All folds draw from one pool of augmented copies (samples.py), each without those of its held-out patients.
A fold ends when its time is over. The moving average of the weights at the end is kept; nothing is chosen on
held-out patients. Each fold writes a model file, ``<fold>.safetensors``.
"""

import argparse
import json
import math
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from samples import Case, Maker

from medseg.inference.model import Model
from medseg.networks.unet import UNet
from medseg.recipe import Recipe

T0 = time.time()
RECIPE = Recipe.read(Path(__file__).parent / "lung_ct_context.yaml")
COARSE, FINE = RECIPE.context.network.widths, RECIPE.network.widths
LICENCE = "Apache-2.0; trained on data under CC BY 3.0, to be cited: benchmarks/lungs/context/README.md"
A = ("LCTSC-000", "LCTSC-003", "LCTSC-004", "LCTSC-006")
B = ("LCTSC-001", "LCTSC-002", "LCTSC-007", "LCTSC-008")
GE = ("LIDC-IDRI-0001", "LIDC-IDRI-0003", "LIDC-IDRI-1011")
# Every source is held out completely once: "one" holds out GE, 4D-Lung and Toshiba; "two" Philips, R01 and
# CPTAC; "no_lctsc" the source with manual masks. "one" and "two" also hold out half of its patients each.
FOLDS = {
    "final": (),
    "one": (*A, *GE, "4DLung-113", "TCGA-09-2043"),
    "no_lctsc": A + B,
    "two": (*B, "LIDC-IDRI-0314", "TCGA-E3-A3E5", "R01-001", "C3N-00249"),
}
SHARES = {"final": 1.6, "one": 1.0, "no_lctsc": 1.0, "two": 1.0}
WEIGHTS = {"C3N-04457": 0.25, "TCGA-E3-A3E5": 0.7, "LIDC-IDRI-0314": 1.3, "R01-001": 1.2, "C3N-00249": 1.2}


def say(*words):
    print(f"[{time.time() - T0:6.1f}]", *words, flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pool-seconds", type=float, default=10)
    parser.add_argument("--pool", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 160, 160))
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", type=int, default=1)
    parser.add_argument("--cases", required=True, help="the file that silver.py writes")
    parser.add_argument("--only", nargs="*", help="names of cases, to test the script")
    parser.add_argument("--folds", nargs="*", default=list(FOLDS))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--worker-seconds", type=float, default=90)
    parser.add_argument("--patch", type=int, nargs=3, default=(80, 64, 64))
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def main():
    a = arguments()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device(a.device)
    if a.device == "cuda":
        say(torch.cuda.get_device_name(), torch.__version__)
    z = np.load(a.cases)
    names = a.only or sorted({k.split("/")[0] for k in z.files})
    cases = {n: Case(n, z[n + "/q"], z[n + "/t"], z[n + "/s"], device) for n in names}
    say("cases", len(cases))
    maker = Maker(tuple(a.size), device, a.seed)
    half = tuple(n // 2 for n in a.size)
    pool, workers = start_pool(a, names, device)
    nets = {
        "coarse": UNet(3, 1, 2, widths=COARSE, norm="instance").to(device),
        "fine": UNet(3, 3, 2, widths=FINE, norm="instance").to(device),
    }
    run = {k: torch.compile(n) if a.compile else n for k, n in nets.items()}
    if a.compile:
        try:
            once(nets, run, half, device, a)
            say("compiled")
        except Exception:
            traceback.print_exc()
            run = dict(nets)
    once(nets, run, half, device, a)
    wait_for_pool(a, names, pool, workers)
    end = T0 + a.seconds
    left = list(a.folds)
    log = {}
    for fold in a.folds:
        share = SHARES[fold] / sum(SHARES[f] for f in left)
        left.remove(fold)
        seconds = (end - time.time() - 1.5 * (1 + len(left))) * share
        try:
            log[fold] = train(fold, nets, run, pool, names, seconds, a)
            log[fold]["scores"] = check(fold, nets, maker, cases)
        except Exception:
            traceback.print_exc()
            say("fold failed", fold)
        (Path(a.out) / "log.json").write_text(json.dumps(log))
    say("done")


def start_pool(a, names, device):
    """An empty pool of samples, and the processes that fill it."""
    images = torch.zeros((a.pool, *a.size), dtype=torch.uint8, device=device)
    labels = torch.zeros_like(images)
    spots, owner = (
        torch.zeros((a.pool, 8, 3), dtype=torch.int32),
        torch.full((a.pool,), -1, dtype=torch.int32),
    )
    workers = []
    for v in (images, labels, spots, owner):
        if not v.is_cuda:
            v.share_memory_()
    context = torch.multiprocessing.get_context("spawn")
    for k in range(a.workers):
        until = time.time() + a.worker_seconds
        given = (a, names, (images, labels, spots, owner), k, a.workers, until)
        workers.append(context.Process(target=fill, args=given, daemon=True))
        workers[-1].start()
    say("workers started")
    return (images, labels, spots, owner), workers


def wait_for_pool(a, names, pool, workers):
    """Waits until the pool has enough samples; makes them in this process if the others fail."""
    owner = pool[3]
    wait = time.time()
    while (
        (owner >= 0).sum() < min(a.pool, 1500)
        and any(w.is_alive() for w in workers)
        and time.time() - wait < a.pool_seconds
    ):
        time.sleep(0.2)
    say(f"pool {int((owner >= 0).sum())}", [w.exitcode for w in workers])
    if (owner >= 0).sum() < 300:
        say("made here")
        fill(a, names, pool, 0, 1, time.time() + a.pool_seconds)
        say(f"pool {int((owner >= 0).sum())}")


def fill(a, names, pool, worker, workers, until):
    """Makes one of every ``workers`` samples of the pool, beginning with number ``worker``."""
    images, labels, spots, owner = pool
    torch.set_num_threads(1)
    device = torch.device(a.device)
    z = np.load(a.cases)
    cases = {n: Case(n, z[n + "/q"], z[n + "/t"], z[n + "/s"], device) for n in names}
    maker = Maker(tuple(a.size), device, a.seed * 1000 + worker)
    weight = np.array([WEIGHTS.get(n, 1.0) for n in names])
    credit = maker.rng.random(len(names)) * 0.5
    for k in range(worker, a.pool, workers):
        if time.time() > until:
            break
        if int(owner[k]) >= 0:
            continue
        credit += weight / weight.sum()
        n = int(credit.argmax())
        credit[n] -= 1
        image, label, at = maker.sample(cases[names[n]])
        images[k], labels[k] = image, label
        spots[k] = torch.from_numpy(at.astype(np.int32))
        if device.type == "cuda":
            torch.cuda.synchronize()
        owner[k] = n


def cast(device):
    return torch.autocast(device.type, dtype=torch.float16 if device.type == "cuda" else torch.bfloat16)


def once(nets, run, half, device, a):
    """Three steps of both networks as in training, to compile and test them."""
    t = time.time()
    for k in range(3):
        x = torch.rand(a.batch, 1, *half, device=device)
        with cast(device):
            y = run["coarse"](x)
            box = (slice(None), slice(None), *(slice(0, n) for n in a.patch))
            w = run["fine"](torch.cat([x, torch.softmax(y.float(), 1).detach()], 1)[box].contiguous())
        (y.float().mean() + w.float().mean()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if k == 0:
            say(f"first step {time.time() - t:.1f} s")
            t = time.time()
    say(f"step {(time.time() - t) / 2 * 1000:.0f} ms")
    for n in nets.values():
        n.zero_grad(set_to_none=True)


def logs(logits):
    return F.log_softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits], 1), 1)


def loss_of(logits, truth):
    """Cross-entropy and Dice of a softmax with a background of logit 0; truth (N, 2, ...) in 0..1."""
    log = logs(logits.float())
    whole = torch.cat([1 - truth.sum(1, keepdim=True), truth], 1)
    ce = -(whole * log).sum(1).mean()
    prob = log.exp()[:, 1:]
    dims = (0, 2, 3, 4)
    dice = (2 * (prob * truth).sum(dims) + 50) / (prob.sum(dims) + truth.sum(dims) + 50)
    return 2 * ce + (1 - dice).mean(), dice.detach()


def spoiled(logits, rng):
    """Probabilities of the coarse network, made worse as if the patient were unknown to it."""
    n = len(logits)
    size = logits.shape[2:]
    noise = F.interpolate(
        torch.randn(n, 2, *[max(2, s // 6) for s in size], device=logits.device), size, mode="trilinear"
    )
    noise = noise * torch.rand(n, 1, 1, 1, 1, device=logits.device) * 4
    prob = logs(logits.float() + noise).exp()[:, 1:]
    shift = [int(v) for v in rng.integers(-1, 2, 3)]
    if rng.random() < 0.4:
        prob = torch.roll(prob, shift, (2, 3, 4))
    keep = (torch.rand(n, 1, 1, 1, 1, device=logits.device) > 0.08).float()
    return prob * keep


def reset(nets):
    """Initialises the weights afresh."""
    for n in nets.values():
        for m in n.modules():
            if hasattr(m, "reset_parameters"):
                m.reset_parameters()
            if isinstance(m, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
                torch.nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    torch.nn.init.zeros_(m.bias)
        torch.nn.init.normal_(n.head.weight, std=0.02)


def batch(pool, pick, rng, device):
    """Images and masks of both sides for some samples of the pool, and which of them are mirrored."""
    images, labels = pool[:2]
    index = torch.from_numpy(np.array(pick)).to(device)
    image = images[index].to(torch.float32)[:, None] / 255
    label = labels[index][:, None]
    truth = torch.cat([label == 1, label == 2], 1).float()
    mirrored = np.flatnonzero(rng.random(len(pick)) < 0.15)
    for k in mirrored:
        # A mirrored patient: right stays the right side, not the side without the heart.
        image[k], truth[k] = image[k].flip(1), truth[k].flip(1).flip(0)
    seen = (image > 0.004).float()
    gain = 1 + 0.06 * torch.randn(len(pick), 1, 1, 1, 1, device=device)
    offset = 0.01 * torch.randn(len(pick), 1, 1, 1, 1, device=device)
    return ((image * gain + offset) * seen).clamp(0, 1), truth, mirrored


def patch_boxes(spots, pick, mirrored, rng, a):
    """The box of each sample that the fine network sees, near an edge of a lung."""
    boxes = []
    for k, case in enumerate(pick):
        at = spots[case, rng.integers(8)] + rng.integers(-24, 25, 3)
        if k in mirrored:
            at[0] = a.size[0] - 1 - at[0]
        low = [int(np.clip(p - h // 2, 0, n - h)) for p, h, n in zip(at, a.patch, a.size, strict=True)]
        boxes.append((k, slice(None), *(slice(x, x + h) for x, h in zip(low, a.patch, strict=True))))
    return boxes


def save(fold, nets, steps, a):
    """Writes the model file of a fold."""
    weights = {
        f"{k}.{key}": v.detach().half().contiguous().cpu().clone()
        for k, n in nets.items()
        for key, v in n.state_dict().items()
    }
    about = {"fold": fold, "steps": steps, "licence": LICENCE}
    Model(RECIPE, (weights,), about).save(Path(a.out) / f"{fold}.safetensors")


def train(fold, nets, run, pool, names, seconds, a):
    """Trains one fold for some seconds and saves it; the number of steps and the losses."""
    _, _, spots, owner = pool
    device = torch.device(a.device)
    started = time.time()
    owned, spots = owner.numpy().copy(), spots.numpy()
    allowed = np.flatnonzero(
        (owned >= 0) & ~np.isin(owned, [k for k, n in enumerate(names) if n in FOLDS[fold]])
    )
    say(fold, f"{len(allowed)} of {int((owned >= 0).sum())} samples, {seconds:.0f} s")
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    reset(nets)
    parameters = [p for n in nets.values() for p in n.parameters()]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.AdamW(parameters, lr=a.rate, weight_decay=1e-4, fused=device.type == "cuda")
    scaler = torch.amp.GradScaler(
        device.type, init_scale=1024, growth_interval=500, enabled=device.type == "cuda"
    )
    step, reported, curve = 0, time.time(), []
    queue = []
    while True:
        part = (time.time() - started) / seconds
        if part >= 1:
            break
        rate = a.rate * min(1, part / 0.04 + 0.01) * (0.5 * (1 + math.cos(math.pi * part)) * 0.99 + 0.01)
        for g in optimiser.param_groups:
            g["lr"] = rate
        while len(queue) < a.batch:
            queue += list(rng.permutation(allowed))
        pick, queue = queue[: a.batch], queue[a.batch :]
        image, truth, mirrored = batch(pool, pick, rng, device)
        small, small_truth = F.avg_pool3d(image, 2), F.avg_pool3d(truth, 2)
        noise = 0.02 * torch.rand(a.batch, 1, 1, 1, 1, device=device) * torch.randn_like(small)
        small = small + noise * (small > 0.004)
        with cast(device):
            found = run["coarse"](small)
        first, dice_coarse = loss_of(found, small_truth)
        wide = F.interpolate(spoiled(found.detach(), rng), scale_factor=2, mode="trilinear")
        boxes = patch_boxes(spots, pick, mirrored, rng, a)
        patch = torch.stack([torch.cat([image[box], wide[box]]) for box in boxes])
        with cast(device):
            refined = run["fine"](patch)
        second, dice_fine = loss_of(refined, torch.stack([truth[box] for box in boxes]))
        scaler.scale(first + second).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(parameters, 12.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        decay = min(0.998, (1 + step) / (20 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        step += 1
        if step % 20 == 0:
            if time.time() - reported > max(4, seconds / 8):
                reported = time.time()
                curve.append((step, float(first.detach()), float(second.detach())))
                say(
                    fold,
                    f"step {step} loss {float(first.detach()):.3f} {float(second.detach()):.3f} dice",
                    [round(float(v), 3) for v in (*dice_coarse, *dice_fine)],
                )
            elif device.type == "cuda":
                torch.cuda.synchronize()
    with torch.no_grad():
        for p, v in zip(parameters, average, strict=False):
            p.copy_(v)
    save(fold, nets, step, a)
    say(fold, f"{step} steps in {time.time() - started:.1f} s")
    return {"steps": step, "seconds": time.time() - started, "curve": curve}


@torch.no_grad()
def check(fold, nets, maker, cases):
    """Dice of both lungs on the unchanged central view of each held-out case (for ``final``: of four)."""
    device, scores = maker.device, {}
    chosen = FOLDS[fold] or list(cases)[:4]
    for name in chosen:
        if name not in cases or not cases[name].lungs:
            continue
        image, right, left = maker.shaped(cases[name], plain=True)
        with cast(device):
            found = nets["coarse"](F.avg_pool3d(image[None], 2))
            wide = F.interpolate(logs(found.float()).exp()[:, 1:], scale_factor=2, mode="trilinear")
            refined = nets["fine"](torch.cat([image[None], wide], 1))
        prob = logs(refined.float()).exp()[:, 1:]
        lungs = (right | left)[0]
        both = []
        for p in (wide, prob):
            m = p.sum(1)[0] > 0.5
            both.append(round(2 * int((m & lungs).sum()) / max(1, int(m.sum() + lungs.sum())), 4))
        side = [
            round(
                2 * int(((prob[0, k] > 0.5) & t[0]).sum()) / max(1, int((prob[0, k] > 0.5).sum() + t.sum())),
                4,
            )
            for k, t in enumerate((right, left))
        ]
        scores[name] = [*both, *side]
        say("  ", fold, name, "coarse, fine, right, left", scores[name])
    return scores


if __name__ == "__main__":
    main()

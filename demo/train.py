"""Train the demo model: `python -m demo.train`, from nothing or `--from` weights that it wrote before.

Draws its pictures (see scenes.py), trains a small noise-predicting UNet on them with Adam, and keeps the average of
the weights. The state is saved every few minutes: the same command goes on where it was stopped, and with fewer
`--steps` it finishes earlier, since only the last third lowers the learning rate.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from . import checkpoint
from .checkpoint import Architecture, Checkpoint
from .data import Pictures, pictures
from .engine import schedule_of
from .prompts import ANY, COLOURS, OBJECTS, TABLE_ROWS
from .prompts import rows as rows_of
from .unet import build

AVERAGE = 0.999  # of the weights, from step to step
NO_COLOUR, NO_OBJECT = 0.075, 0.075  # how often half of the prompt is left open


class Model(nn.Module):
    """The UNet with its token table."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.unet = build(architecture)
        self.tokens = nn.Embedding(TABLE_ROWS, architecture.token_width)

    def forward(self, x: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(x, steps, self.tokens(tokens)).sample


def batch_of(data: Pictures, rows: Tensor, nothing: float, generator: torch.Generator) -> "tuple[Tensor, Tensor]":
    """Pictures -1..1, half of them mirrored, and their tokens: a share `nothing` left open, a few others half open."""
    images = data.images[rows].float() / 127.5 - 1
    mirrored = torch.rand(len(rows), generator=generator) < 0.5
    images[mirrored] = images[mirrored].flip(-1)
    colour, thing = data.colours[rows] + 1, data.objects[rows] + 1
    drop = torch.rand(len(rows), generator=generator)
    colour[drop < nothing + NO_COLOUR] = ANY
    thing[(drop < nothing) | ((drop >= nothing + NO_COLOUR) & (drop < nothing + NO_COLOUR + NO_OBJECT))] = ANY
    return images, torch.stack(rows_of(colour, thing), 1)


def weights_of(signal: Tensor) -> Tensor:
    """The weight of a noise level in the loss, from the picture's share of its variance (the schedule's alpha bar).

    A trained model's square error of the noise grows about as the root of the signal-to-noise ratio, so that all levels
    count alike with the root of its inverse. Weighted less, the noisiest levels, which decide on the colours of a
    picture without a prompt, are lost in the gradients of the others.
    """
    return ((1 - signal) / signal).sqrt()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Rises over 200 steps, stays, and falls over the last third."""
    return peak * min(1.0, (step + 1) / 200, max(0.0, (steps - step) / (steps / 3)))


def samples(model: Model, schedule: DDIMScheduler, architecture: Architecture, path: Path) -> None:
    """Draw every object in one colour, by classifier-free guidance, as a sheet."""
    from PIL import Image

    generator = torch.Generator().manual_seed(7)
    colour = torch.arange(len(OBJECTS)) % len(COLOURS) + 1
    things = torch.stack(rows_of(colour, torch.arange(len(OBJECTS)) + 1), 1)
    nothing = torch.tensor([rows_of(ANY, ANY)]).expand_as(things)
    x = torch.randn(len(OBJECTS), 3, architecture.size, architecture.size, generator=generator)
    x = torch.cat([x, x])  # with the prompt, and with none
    schedule.set_timesteps(10)
    for step in schedule.timesteps:
        noise = model(x, step, torch.cat([things, nothing]))
        conditional, unconditional = noise.chunk(2)
        noise = torch.cat([unconditional + 2.5 * (conditional - unconditional), unconditional])
        x = schedule.step(noise, step, x).prev_sample
    sheet = x.reshape(2, len(OBJECTS), 3, architecture.size, -1).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    image = Image.fromarray(((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
    image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".cache/train"), help="state, log and sample sheets")
    parser.add_argument("--pictures", type=Path, default=Path(".cache/pictures"), help="where drawn pictures are kept")
    parser.add_argument("--out", type=Path, default=checkpoint.WEIGHTS, help="the finished weights")
    parser.add_argument("--from", type=Path, dest="start", metavar="WEIGHTS", help="begin with these, not with nothing")
    parser.add_argument("--count", type=int, default=16000, help="pictures to train on")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=8e-4, help="highest learning rate")
    parser.add_argument("--nothing", type=float, default=0.4, help="share of the pictures that have no prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between saved states")
    parser.add_argument("--compile", action="store_true", help="faster after a minute or two; needs a C++ compiler")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    architecture = Architecture()
    data = pictures(args.count, architecture.size, args.pictures)
    torch.manual_seed(args.seed)
    model = Model(architecture)
    before = 0  # steps that the weights have behind them
    if args.start:
        given = checkpoint.load(args.start)
        model.unet.load_state_dict(given.unet)
        model.tokens.weight.data.copy_(given.token_table)
        before = given.trained_steps
    model.to(args.device, memory_format=torch.channels_last)
    average = Model(architecture).to(args.device, memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    predict = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.01)
    schedule = schedule_of(architecture)
    signal = schedule.alphas_cumprod.to(args.device)
    weights = weights_of(signal)

    state, log = args.folder / "state.pt", args.folder / "loss.jsonl"
    first = 0
    if state.exists():
        saved = torch.load(state, map_location=args.device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first, before = saved["step"], saved["before"]
        print(f"going on at step {first}")

    started, losses = time.monotonic(), []
    for step in range(first, args.steps):
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)  # a step draws the same after a stop
        picked = torch.randint(len(data.images), (args.batch,), generator=generator)
        images, tokens = batch_of(data, picked, args.nothing, generator)
        steps = torch.randint(len(signal), (args.batch,), generator=generator).to(args.device)
        noise = torch.randn(images.shape, generator=generator).to(args.device)
        images, tokens = images.to(args.device, memory_format=torch.channels_last), tokens.to(args.device)
        rate = learning_rate(step, args.steps, args.rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(args.device, dtype=torch.bfloat16):
            predicted = predict(schedule.add_noise(images, noise, steps), steps, tokens)
        loss = (weights[steps] * (predicted.float() - noise).square().mean((1, 2, 3))).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            share = 1 - min(AVERAGE, (step + 1) / (step + 10))
            for mean, now in zip(average.parameters(), model.parameters()):
                mean.lerp_(now, share)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss is {losses[-1]} at step {step}: start again with a lower --rate")
        done = step + 1
        if done % 25 == 0:
            left = (time.monotonic() - started) / (done - first) * (args.steps - done)
            recent = sum(losses[-250:]) / len(losses[-250:])
            print(f"\rstep {done}/{args.steps}  loss {recent:.4f}  {left / 60:.0f} min left ", end="", flush=True)
        if done % args.every == 0 or done == args.steps:
            with log.open("a") as file:
                file.write(json.dumps({"step": done, "loss": sum(losses) / len(losses), "rate": rate}) + "\n")
            losses = []
            everything = {"model": model.state_dict(), "average": average.state_dict(), "step": done, "before": before}
            torch.save({**everything, "optimizer": optimizer.state_dict()}, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)
            weights_now = {name: tensor.cpu() for name, tensor in average.unet.state_dict().items()}
            kept = Checkpoint(architecture, weights_now, average.tokens.weight.cpu(), before + done)
            checkpoint.save(kept, args.folder / "average.safetensors")
            with torch.no_grad():
                on_cpu = Model(architecture).requires_grad_(False)
                on_cpu.load_state_dict({name: tensor.cpu() for name, tensor in average.state_dict().items()})
                samples(on_cpu, schedule, architecture, args.folder / f"samples_{done:06d}.png")
    print()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.folder / "average.safetensors", args.out)
    shutil.copyfile(log, args.out.with_suffix(".loss.jsonl"))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()

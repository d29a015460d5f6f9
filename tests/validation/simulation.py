"""Hold miniature universes against theory; write the numbers and figures of docs/accuracy.md, "The simulation".

    python tests/validation/simulation.py OUT [--particles 192] [--boxsize 480] [--seeds 1 2 3] [--finer]

Three universes of 192³ particles with all halos take two cores about three minutes and 3 GB. With camb (the extra
``peers``) the power is also held against HMcode-2020. ``--finer`` compares velocities with a run of eight times the
particles from the same waves: three minutes more.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from velfield.analysis.figure_style import STYLE, save
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.redshift_space import redshift_space
from velfield.physics.spectra import multipoles, power
from velfield.simulation.gravity import deposit, leapfrog, linear_density
from velfield.simulation.simulate import SimulateConfig, evolve, halos_of, step_schedule

REDSHIFTS = (0.212, 0.0)
FLOOR = 3.7e10
THRESHOLDS = np.logspace(np.log10(FLOOR), 15, 20)
SAMPLES = {"all halos": FLOOR, "above 1e12": 1e12}
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def contrast(pos, boxsize, mesh, weight=None):
    """Density contrast on a mesh, the cloud-in-cell window divided out."""
    tracers = torch.from_numpy(np.ascontiguousarray(pos.T, dtype=np.float32))
    weight = None if weight is None else torch.from_numpy(np.ascontiguousarray(weight))
    density = deposit(tracers, boxsize, mesh, weight)
    modes = torch.fft.rfftn(density / density.mean() - 1)
    waves = torch.fft.fftfreq(mesh)
    for axis, w in enumerate((waves, waves, waves[: mesh // 2 + 1].abs())):
        modes /= torch.sinc(w).pow(2).view([-1 if a == axis else 1 for a in range(3)])
    return torch.fft.irfftn(modes, s=(mesh,) * 3).numpy()


def cell_velocity(pos, vel, boxsize, cells):
    """Mean velocity of the particles in each cell (3, cells³), NaN where there is none."""
    index = np.ravel_multi_index((np.floor(pos * (cells / boxsize)).astype(int) % cells).T, (cells,) * 3)
    number = np.bincount(index, minlength=cells**3)
    sums = np.stack([np.bincount(index, vel[:, a], minlength=cells**3) for a in range(3)])
    return np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0)


def linear_sigma_v(boxsize, redshift):
    """1D velocity dispersion [km/s] of linear theory: of the modes that a periodic box has, and of all."""
    rate = OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift)
    k = np.logspace(-4, 1.5, 4000)
    whole = np.trapezoid(OUTER_RIM.linear_power(k, redshift), k) / (6 * np.pi**2)
    n = np.fft.fftfreq(64, 1 / 64)
    k2 = (2 * np.pi / boxsize) ** 2 * sum(np.meshgrid(n**2, n**2, n**2, indexing="ij"))
    near = k2[(k2 > 0) & (k2 < (2 * np.pi / boxsize * 32) ** 2)]
    beyond = k[k > 2 * np.pi / boxsize * 32]
    box = (OUTER_RIM.linear_power(np.sqrt(near), redshift) / near).sum() / (3 * boxsize**3)
    box += np.trapezoid(OUTER_RIM.linear_power(beyond, redshift), beyond) / (6 * np.pi**2)
    return rate * np.sqrt(box), rate * np.sqrt(whole)


def measure(snapshot, config, initial, bins):
    """Everything that one snapshot is asked."""
    side, mesh, z = config.boxsize, 2 * config.particles, snapshot.redshift
    matter = contrast(snapshot.pos, side, mesh)
    found = {"power": power(matter, side, bins=bins).power, "k": power(matter, side, bins=bins).k}
    found["linear"] = power(initial, side, bins=bins).power * OUTER_RIM.growth(z) ** 2
    cells = round(side / 5)
    found["sigma_v"] = float(snapshot.vel.std())
    found["sigma_v_cells"] = float(np.nanstd(cell_velocity(snapshot.pos, snapshot.vel, side, cells)))
    if z > 0:
        return found
    chunks = list(halos_of(snapshot, config))
    pos, vel, mass = (np.concatenate([getattr(c, name) for c in chunks]) for name in ("pos", "vel", "mass"))
    found["number"] = np.array([(mass > m).sum() / side**3 for m in THRESHOLDS])
    coarse, long = contrast(snapshot.pos, side, config.particles), [0.0, 0.08]

    def bias(chosen, weight=None):
        cross = power(contrast(pos[chosen], side, config.particles, weight), side, coarse, bins=long).power[0]
        return cross / power(coarse, side, bins=long).power[0]

    edges = np.append(THRESHOLDS[::2], 1e16)
    within = [(mass > low) & (mass < high) for low, high in pairwise(edges)]
    found["bias"] = np.array([bias(w) for w in within])
    found["bias_theory"] = np.array([np.mean(OUTER_RIM.halo_bias(mass[w], z)) for w in within])
    found["bias_mass"] = np.array([np.exp(np.log(mass[w]).mean()) for w in within])
    for name, low in SAMPLES.items():
        heavy = mass > low
        found[f"bias by number, {name}"] = bias(heavy)
        found[f"bias by mass, {name}"] = bias(heavy, mass[heavy])
        found[name] = distorted(pos[heavy], vel[heavy], side, mesh, z, bins)
    found["matter"] = distorted(snapshot.pos, snapshot.vel, side, mesh, z, bins, shot=False)
    return found


def distorted(pos, vel, side, mesh, z, bins, *, shot=True):
    """P₀ and P₂ in redshift space over the power in real space, averaged over three lines of sight."""
    noise = side**3 / len(pos) if shot else 0.0
    real = power(contrast(pos, side, mesh), side, bins=bins).power - noise
    seen = []
    for axis in np.eye(3):
        there = redshift_space(pos, vel, redshift=z, cosmology=OUTER_RIM, line_of_sight=axis)
        p = multipoles(contrast(np.mod(there, side), side, mesh), side, axis, bins=bins).power
        seen.append([(p[0] - noise) / real, p[1] / real])
    return np.mean(seen, axis=0)


def nonlinear(k, redshift):
    """HMcode-2020 power of camb for this cosmology; None without camb."""
    try:
        import camb
    except ImportError:
        return None
    c, amplitude = OUTER_RIM, 2e-9
    for _ in range(2):  # once to learn sigma8, once with the amplitude that gives the one wanted
        p = camb.CAMBparams()
        p.set_cosmology(H0=100 * c.h, ombh2=c.omega_b * c.h**2, omch2=(c.omega_m - c.omega_b) * c.h**2, mnu=0, omk=0)
        p.InitPower.set_params(ns=c.n_s, As=amplitude)
        p.set_matter_power(redshifts=sorted({0.0, redshift}, reverse=True), kmax=20)
        p.NonLinear = camb.model.NonLinear_both
        p.NonLinearModel.set_params(halofit_version="mead2020")
        results = camb.get_results(p)
        amplitude *= (c.sigma8 / results.get_sigma8_0()) ** 2
    return results.get_matter_power_interpolator(nonlinear=True).P(redshift, k)


def finer(seed):
    """Velocities in 5 h⁻¹Mpc cells of 128³ particles against 256³ from the same waves, 2.5 and 1.25 h⁻¹Mpc apart."""
    side = 320.0
    big = linear_density(OUTER_RIM, side, 256, seed)
    keep = np.r_[0:64, 192:256]
    small = (big[keep][:, keep][:, :, :65] / 8).clone()
    small[64], small[:, 64], small[:, :, 64] = 0, 0, 0
    cells = {}
    for delta, n, mesh in ((big, 256, 384), (small, 128, 128), (small, 128, 192), (small, 128, 256)):
        config = SimulateConfig(boxsize=side, particles=n, redshifts=(0.0,), seed=seed, mesh=mesh)
        *_, s = leapfrog(delta, OUTER_RIM, side, start=19.0, schedule=step_schedule(config), mesh=mesh)
        cells[mesh] = cell_velocity(s.pos, s.vel, side, 64), power(contrast(s.pos, side, 256), side).power
    (true, reference) = cells.pop(384)
    rows = {}
    for mesh, (v, p) in cells.items():
        both = np.isfinite(v).all(axis=0) & np.isfinite(true).all(axis=0)
        a, b = true[:, both], v[:, both]
        rows[f"mesh {mesh}"] = {
            "rms_difference": float((b - a).std()),
            "r": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
            "power_ratio": {f"k={(i + 1) * 2 * np.pi / side:.2f}": float(p[i] / reference[i]) for i in (4, 12, 24, 48)},
        }
    return rows


def spread(values):
    values = np.array(values)
    return values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(values[0])


def draw_power(found, out):
    figure, (top, ratio, growth) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    k = found[0][0]["k"]
    for i, colour in ((1, BLUE), (0, RED)):
        z = found[0][i]["z"]
        linear, fit = OUTER_RIM.linear_power(k, z), nonlinear(k, z)
        # the box's own waves scatter about the mean spectrum: their linear power, not the mean one, is divided out
        mean, scatter = spread([f[i]["power"] / f[i]["linear"] for f in found])
        top.loglog(k, linear * mean, color=colour, label=f"z = {z:.3g}")
        top.loglog(k, linear, color=colour, ls=":", lw=1)
        if fit is not None:
            top.loglog(k, fit, color=colour, ls="--", lw=1)
        base = linear if fit is None else fit
        ratio.semilogx(k, linear * mean / base, color=colour)
        ratio.fill_between(
            k, linear * (mean - scatter) / base, linear * (mean + scatter) / base, color=colour, alpha=0.2
        )
    top.plot([], [], ":", color=GREY, label="linear")
    top.plot([], [], "--", color=GREY, label="HMcode-2020")
    top.set(xlabel="k  [h Mpc$^{-1}$]", ylabel="P(k)  [$h^{-3}$ Mpc$^3$]", title="matter power")
    top.legend()
    ratio.axhline(1, color=GREY, lw=0.8)
    ratio.set(xlabel="k  [h Mpc$^{-1}$]", ylim=(0.6, 1.2), title="simulation / HMcode-2020, mean and scatter")
    mean, scatter = spread([f[1]["power"] / f[0]["power"] for f in found])
    growth.semilogx(k, mean, color=BLUE, label="simulation")
    growth.fill_between(k, mean - scatter, mean + scatter, color=BLUE, alpha=0.2)
    early = found[0][0]["z"]
    growth.axhline(OUTER_RIM.growth(early) ** -2, color=GREY, ls=":", label="linear")
    if nonlinear(k, early) is not None:
        growth.semilogx(k, nonlinear(k, 0.0) / nonlinear(k, early), "--", color=GREY, label="HMcode-2020")
    growth.set(xlabel="k  [h Mpc$^{-1}$]", title=f"growth: P(z = 0) / P(z = {early:.3g})")
    growth.legend()
    save(figure, f"{out}/simulation-power.png")


def draw_halos(found, out):
    figure, (number, bias) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    late = [f[1] for f in found]
    wanted = np.array([OUTER_RIM.halo_density(m, 0.0) for m in THRESHOLDS])
    mean, scatter = spread([f["number"] / wanted for f in late])
    number.errorbar(THRESHOLDS, mean, scatter, fmt="o", ms=4, color=BLUE)
    number.axhline(1, color=GREY, lw=0.8)
    number.set(xscale="log", ylim=(0.9, 1.1), xlabel="M  [$h^{-1}$M$_\\odot$]", title="n(>M) / Crocce et al. 2010")
    mean, scatter = spread([f["bias"] for f in late])
    mass = np.mean([f["bias_mass"] for f in late], axis=0)
    bias.errorbar(mass, mean, scatter, fmt="o", ms=4, color=BLUE, label="simulation, k < 0.08 h Mpc$^{-1}$")
    line = np.logspace(np.log10(FLOOR), 15.1, 60)
    bias.plot(line, OUTER_RIM.halo_bias(line, 0.0), color=GREY, label="Tinker et al. 2010")
    bias.set(xscale="log", yscale="log", xlabel="M  [$h^{-1}$M$_\\odot$]", title="bias of each mass")
    bias.set_yticks([0.7, 1, 2, 4], ["0.7", "1", "2", "4"])
    bias.minorticks_off()
    bias.legend()
    save(figure, f"{out}/simulation-halos.png")


def draw_redshift_space(found, out):
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharex=True)
    late, f = [x[1] for x in found], OUTER_RIM.growth_rate(0.0)
    biases = {"matter": 1.0} | {s: np.mean([x[f"bias by number, {s}"] for x in late]) for s in SAMPLES}
    for (name, b), colour in zip(biases.items(), (GREY, BLUE, RED), strict=True):
        mean, scatter = spread([x[name] for x in late])
        beta = f / b
        kaiser = (1 + 2 / 3 * beta + beta**2 / 5, 4 / 3 * beta + 4 / 7 * beta**2)
        for ax, m, s, wanted in zip(axes, mean, scatter, kaiser, strict=True):
            ax.semilogx(late[0]["k"], m, color=colour, label=name)
            ax.fill_between(late[0]["k"], m - s, m + s, color=colour, alpha=0.2)
            ax.axhline(wanted, color=colour, ls=":")
    for ax, ell in zip(axes, (0, 2), strict=True):
        ax.set(xlabel="k  [h Mpc$^{-1}$]", title=f"P$_{ell}$(k) in redshift space / P(k) in real space")
    axes[0].plot([], [], ":", color="black", label="Kaiser 1987")
    axes[0].legend()
    save(figure, f"{out}/simulation-redshift-space.png")


def numbers(found, config, seeds):
    """The table of docs/accuracy.md: mean and scatter over the universes, and what theory says."""
    late, f = [x[1] for x in found], OUTER_RIM.growth_rate(0.0)
    k = late[0]["k"]
    long, short = k < 0.06, (k > 0.3) & (k < 0.4)
    box, whole = linear_sigma_v(config.boxsize, 0.0)
    growth = [np.mean((x[1]["power"] / x[0]["power"])[long]) for x in found]
    rows = {
        "sigma_v [km/s]": ([x["sigma_v"] for x in late], f"linear {box:.0f} in this box, {whole:.0f} without bounds"),
        "sigma_v, 5 Mpc/h cells": ([x["sigma_v_cells"] for x in late], ""),
        "P(0)/P(0.212), k<0.06": (growth, f"linear {OUTER_RIM.growth(found[0][0]['z']) ** -2:.4f}"),
        "n(>3.7e10) [h3/Mpc3]": ([x["number"][0] for x in late], f"Crocce {OUTER_RIM.halo_density(FLOOR, 0.0):.4f}"),
    }
    fit = nonlinear(k, 0.0)
    for name, chosen in (("k<0.06", long), ("k=0.1", (k > 0.08) & (k < 0.12)), ("k=0.3-0.4", short)):
        if fit is not None:
            ratio = OUTER_RIM.linear_power(k, 0.0) / fit
            values = [np.mean((x["power"] / x["linear"] * ratio)[chosen]) for x in late]
            rows[f"P / HMcode-2020, {name}"] = (values, "1")
    for name, low in SAMPLES.items():
        for weight in ("number", "mass"):
            wanted = f"Tinker {OUTER_RIM.effective_bias(low, 0.0, weight=weight):.3f}"
            rows[f"bias by {weight}, {name}"] = ([x[f"bias by {weight}, {name}"] for x in late], wanted)
        beta = f / np.mean([x[f"bias by number, {name}"] for x in late])
        for ell, wanted in ((0, 1 + 2 / 3 * beta + beta**2 / 5), (1, 4 / 3 * beta + 4 / 7 * beta**2)):
            for part, chosen in (("k<0.06", long), ("k=0.3-0.4", short)):
                values = [np.average(x[name][ell][chosen]) for x in late]
                rows[f"P{2 * ell}/P, {name}, {part}"] = (values, f"Kaiser {wanted:.3f}")
    out = {"particles": config.particles, "boxsize": config.boxsize, "steps": config.steps, "seeds": seeds, "rows": {}}
    for name, (values, wanted) in rows.items():
        mean, scatter = spread(values)
        out["rows"][name] = {"mean": float(mean), "scatter": float(scatter), "theory": wanted}
        print(f"{name:38s} {mean:9.4f} ± {scatter:.4f}   {wanted}")  # noqa: T201
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--particles", type=int, default=192)
    parser.add_argument("--boxsize", type=float, default=480.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--finer", action="store_true")
    asked = parser.parse_args()
    step = 2 * np.pi / asked.boxsize
    bins = np.unique(np.round(np.geomspace(1, asked.particles * 0.9, 45))) * step - step / 2
    found, began = [], time.monotonic()
    for seed in asked.seeds:
        config = SimulateConfig(boxsize=asked.boxsize, particles=asked.particles, redshifts=REDSHIFTS, seed=seed)
        modes = linear_density(OUTER_RIM, asked.boxsize, asked.particles, seed)
        initial = torch.fft.irfftn(modes).numpy()
        found.append([measure(s, config, initial, bins) | {"z": s.redshift} for s in evolve(config)])
    table = numbers(found, config, asked.seeds)
    if asked.finer:
        table["finer"] = finer(asked.seeds[0])
        print(json.dumps(table["finer"], indent=1))  # noqa: T201
    table["seconds"] = round(time.monotonic() - began)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "simulation.json").write_text(json.dumps(table, indent=1) + "\n")
    with plt.rc_context(STYLE):
        for draw in (draw_power, draw_halos, draw_redshift_space):
            draw(found, asked.out)


if __name__ == "__main__":
    main()

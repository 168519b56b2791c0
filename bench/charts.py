"""Charts for RESULTS.md, as SVG in bench/charts/. One figure, one statement; colours are the same everywhere."""
import pathlib

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "ringfence", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                            "axes.grid": True, "grid.alpha": 0.3, "figure.figsize": (7.5, 4.2), "svg.fonttype": "none"})
from matplotlib import pyplot  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / "charts"
COLOURS = {"direct": "#7f7f7f", "PgBouncer, session": "#1f77b4", "PgBouncer, transaction": "#17becf", "Ringfence, full access": "#d62728",
           "Ringfence, full access, transaction": "#ff7f0e", "Ringfence, durable intents": "#9467bd", "Ringfence, masked face": "#2ca02c",
           "Ringfence, row-filtered face": "#bcbd22"}


def save(figure, name):
    FOLDER.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"![{name}](charts/{name}.svg)"


def bars(name, title, unit, points, key):
    """`points` as of Comparison: one group for each number of clients, one bar for each contender."""
    clients = sorted({p[1] for p in points})
    contenders = [c for c in COLOURS if any(p[2] == c for p in points)]
    figure, axes = pyplot.subplots()
    width = 0.8 / len(contenders)
    for i, contender in enumerate(contenders):
        values = [next((p[3][key] for p in points if p[1:3] == (c, contender)), 0) for c in clients]
        axes.bar([j + i * width for j in range(len(clients))], values, width, label=contender, color=COLOURS[contender])
    axes.set_xticks([j + 0.4 - width / 2 for j in range(len(clients))], [f"{c} clients" for c in clients])
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=7, frameon=False, ncols=2)
    return save(figure, name)


def curve(name, title, x, y, series, logarithmic=True):
    """`series`: name → [(x, y)]."""
    figure, axes = pyplot.subplots()
    for label, points in series.items():
        axes.plot(*zip(*points), marker="o", label=label)
    if logarithmic:
        axes.set_xscale("symlog" if any(p[0] == 0 for s in series.values() for p in s) else "log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    return save(figure, name)

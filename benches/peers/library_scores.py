"""Scores of pytorch-ood 0.4 and oodeel 0.4 on the caches of a network, against those that `residua ood` wrote.

    pip install torch scikit-learn scipy faiss-cpu; pip install --no-deps pytorch-ood==0.4.0 oodeel==0.4.0
    python benches/peers/library_scores.py RESIDUA TRAIN CALIBRATION OOD

RESIDUA is the program; TRAIN, CALIBRATION and OOD are cache folders of `extract`. For each score it prints the largest
difference over all rows, relative to the mean magnitude of the score, and where libraries mean something else, what.
Both libraries compute in f32 (oodeel partly), residua in f64, so 1e-4 is what agreement looks like.
"""

import subprocess
import sys
import tempfile
import types
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore")
program, train, calibration, ood = sys.argv[1:5]


def load(folder):
    return [np.load(f"{folder}/{name}.npy") for name in ("features", "logits", "labels")]


(f, l, y), (fc, lc, yc), (fo, lo, _) = load(train), load(calibration), load(ood)
head = np.load(f"{train}/head.npz")
w, b = torch.tensor(head["W"]).float(), torch.tensor(head["b"]).float()
classes, dimension = w.shape
half = dimension // 2
F, L, Y = torch.tensor(f).float(), torch.tensor(l).float(), torch.tensor(y)
FO, LO = torch.tensor(fo).float(), torch.tensor(lo).float()
linear = torch.nn.Linear(dimension, classes)
linear.weight.data, linear.bias.data = w, b
linear.eval()


def maps(x):
    return x[:, :, None, None]


class FromMaps(torch.nn.Module):
    def forward(self, x):
        return linear(x.flatten(1))


def pytorch_ood():
    from pytorch_ood import detector as d

    out = FromMaps()
    yield "msp", lambda: d.MaxSoftmax(None).predict_logits(LO)
    yield "mls", lambda: d.MaxLogit(None).predict_logits(LO)
    yield "energy", lambda: d.EnergyBased(None).predict_logits(LO)
    yield "entropy", lambda: d.Entropy(None).predict_logits(LO)
    # A mean over classes instead of a sum; in f64, since 1 - p has no digits left in f32.
    yield f"gen:m={classes}:clamp=1e-7", lambda: classes * d.GEN(None).predict_logits(LO.double())
    calibrating = torch.tensor(lc).float(), torch.tensor(yc)
    # Fifty steps of L-BFGS of size 0.01, which end before the best temperature: not the same score.
    scaling = d.TemperatureScaling(None).fit_logits(*calibrating)
    yield "tempscale", lambda: scaling.predict_logits(LO)
    kl = d.KLMatching(None).fit_logits(*calibrating)
    yield "klm", lambda: kl.predict_logits(LO)
    # The library inverts the scatter, not divided by the number of samples, and halves the distance.
    yield "mahalanobis", lambda: 2 * len(F) * d.Mahalanobis(None).fit_features(F, Y).predict_features(FO)
    yield "rmds", lambda: len(F) * d.RMD(None).fit_features(F, Y).predict_features(FO)
    yield f"vim:dim={half}", lambda: d.ViM(None, half, w, b).fit_features(F, Y).predict_features(FO)
    yield "knn", lambda: d.KNN(None, k=50).fit_features(F, Y).predict_features(FO) ** 2
    encoder = torch.nn.Identity()
    # A mean over the other classes instead of their sum.
    yield "fdbd", lambda: (classes - 1) * d.fDBD(encoder, linear).fit_features(F).predict_features(FO)
    yield "nci:weight=0", lambda: d.NCI(encoder, linear).fit_features(F).predict_features(FO)
    yield "she", lambda: d.SHE(encoder, linear).fit_features(F, Y).predict_features(FO)
    yield "nnguide:k=10", lambda: d.NNGuide(encoder, linear, k=10).fit_features(F, Y).predict_features(FO)
    yield "dice", lambda: d.DICE(encoder, w, b, 0.9).fit_features(F, Y).predict_features(FO)
    for name in ("p", "b", "s"):
        yield f"ash_{name}", lambda name=name: d.ASH(encoder, out, f"ash-{name}", 0.9).predict_feature_maps(maps(FO))
    yield "scale", lambda: d.SCALE(encoder, out, 0.85).predict_feature_maps(maps(FO))
    yield "react", lambda: d.ReAct(encoder, out).fit_feature_maps(maps(F), Y).predict_feature_maps(maps(FO))
    # Clips each feature to its own percentiles, residua as OpenOOD to those of all features: not the same score.
    vra = d.VRA(encoder, out, 0.1, 0.9).fit_feature_maps(maps(F), Y)
    yield "vra_openood", lambda: vra.predict_feature_maps(maps(FO))
    norm = d.GradNorm(linear, param_filter=lambda name: name == "weight", micro_batch_size=512)
    # Cross-entropy with the uniform distribution: a mean over classes instead of their sum.
    yield "gradnorm", lambda: classes * norm.predict(FO)
    # The library takes means and tails over the samples it is given, residua as the authors over those classified correctly.
    correct = L.argmax(1) == Y
    openmax = d.OpenMax(None, tailsize=20, alpha=3).fit_logits(L[correct].double(), Y[correct])
    yield "openmax:tail=20:alpha=3", lambda: openmax.predict_logits(LO.double())


def oodeel():
    from torch.utils.data import DataLoader, TensorDataset

    # Imported by oodeel for downloads only.
    sys.modules.setdefault("datasets", types.SimpleNamespace(load_dataset=None))
    from oodeel import methods as m

    model = torch.nn.Sequential()
    model.add_module("features", torch.nn.Identity())
    model.add_module("head", linear)

    def data(x, labels):
        return DataLoader(TensorDataset(x, labels), batch_size=500)

    def run(detector, **more):
        detector.fit(model, fit_dataset=data(F, Y), **more)
        return detector.score(data(FO, torch.zeros(len(FO), dtype=torch.long)))[0]

    layer = {"feature_layers_id": ["features"]}
    yield "mls", lambda: run(m.MLS())
    yield "msp", lambda: run(m.MLS(output_activation="softmax"))
    yield "energy", lambda: run(m.Energy())
    yield "entropy", lambda: run(m.Entropy())
    # In f32: where p rounds to 1 the product with 1 - p is 0.
    yield "gen", lambda: run(m.GEN())
    # Halves distances.
    yield "mahalanobis", lambda: 2 * run(m.Mahalanobis(eps=0.0), **layer)
    yield "rmds", lambda: 2 * run(m.RMDS(eps=0.0), **layer)
    yield "knn", lambda: run(m.DKNN(nearest=50), **layer)
    yield f"vim:dim={half}:origin=mean", lambda: run(m.VIM(princ_dims=half, pca_origin="center"), **layer)
    # The largest product with any class mean, residua as its authors that of the predicted class: not the same score.
    yield "she", lambda: dimension * run(m.SHE(eps=0.0), **layer)
    percent = dict(scale_percentile=0.85)
    yield "scale", lambda: run(m.Energy(use_scale=True, **percent), head_layer_id="head")
    # Keeps what exceeds an interpolated quantile, residua as its authors a number of features: one more or less of them.
    yield "ash_s", lambda: run(m.Energy(use_ash=True, ash_percentile=0.9), head_layer_id="head")
    yield "react", lambda: run(m.Energy(use_react=True, react_quantile=0.9), head_layer_id="head")


def collect(library):
    found, failed = {}, []
    for name, score in library():
        try:
            values = torch.as_tensor(score()).detach().cpu()
            found[name] = -np.asarray(values, dtype=np.float64).reshape(-1)
        except Exception as error:
            failed.append(f"{name}: {error!r}"[:200])
    return found, failed


peers = {library.__name__: collect(library) for library in (pytorch_ood, oodeel)}
names = sorted({name for found, _ in peers.values() for name in found})
with tempfile.TemporaryDirectory() as out:
    command = [program, "ood", "--train", train, "--calibration", calibration, "--id", calibration, "--ood", f"x={ood}"]
    command += ["--methods", ",".join(names), "--out", out, "--quiet", "--plots", "none", "--thumbnails", "0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    own = np.load(f"{out}/scores/x.npz")
    own = {name: own[name] for name in own.files}


def meaning(name):
    """Name and constants, whatever way they are written."""
    method, *constants = name.split(":")
    pairs = (constant.split("=") for constant in constants)
    return method, {key: float(value) if value[0].isdigit() else value for key, value in pairs}


def ranks(values):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def affine(mine, values):
    """Factor and constant of the line through both, and the largest distance from it over the mean magnitude."""
    factor, constant = np.polyfit(values, mine, 1)
    return factor, constant, np.abs(mine - factor * values - constant).max() / np.abs(mine).mean()


print(f"{len(fo)} rows, D = {dimension}, C = {classes}: largest difference over the mean magnitude; of a * score + b; rank correlation")
for library, (found, failed) in peers.items():
    for name, values in found.items():
        mine = next(values for key, values in own.items() if meaning(key) == meaning(name))
        difference = np.abs(mine - values).max() / np.abs(mine).mean()
        factor, constant, rest = affine(mine, values)
        correlation = np.corrcoef(ranks(mine), ranks(values))[0, 1]
        line = f"{library:12} {name:28} {difference:8.1e}  {rest:8.1e} (a {factor:.6g}, b {constant:.4g})"
        print(f"{line}  {correlation:.6f}")
    for error in failed:
        print(f"{library:12} failed: {error}")

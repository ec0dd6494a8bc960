"""Find faces: a small convolutional network that looks at every place of a picture.

Task: 100 grey patches of 25x25 pixels with a face and 100 without; then pictures of 6x6 patches that hold some faces, which must
be found. Network: two blocks of two 3x3 convolutions, 8 and 16 filters. Every patch and picture is judged by a network that never
saw its patches (five folds). Beside it a support vector machine with RBF kernel on the pixels.

Reference: none for these patches; the task is that of Viola & Jones, "Rapid object detection using a boosted cascade of simple
features" (2001), a convolutional answer Garcia & Delakis, "Convolutional face finder" (2004).
"""

import numpy as np

from .. import data, get_num_threads
from ..data import Augment
from ..models import CNN
from ..random import Stream, permutation
from ..schedules import cosine
from ._common import Report
from ._tabular import auc, folds, need_scikit_learn

EPOCHS = {"lfw_subset": 20}
FOLDS, SIDE, STRIDE, GRID, FACES = 5, 25, 5, 6, 6
AUGMENT = Augment(shift=2, rotate=8, scale=0.08, flip=True)


def windows(picture, stride=STRIDE):
    """(patches [N,25,25,1], places [N,2]) of a picture [Y,X], at every `stride` pixels."""
    y, x = (range(0, s - SIDE + 1, stride) for s in picture.shape)
    places = np.array([(a, b) for a in y for b in x])
    return np.stack([picture[a : a + SIDE, b : b + SIDE] for a, b in places])[..., None], places


def find(score, picture, least=0.5, apart=15):
    """Places [n,2] of faces in a picture: windows that score more than `least` and more than all others within `apart` pixels.

    Parameters
    ----------
    score : callable
        ``score(patches) -> [N]``, 0 to 1.
    """
    patches, places = windows(picture)
    values, found = score(patches), []
    for i in np.argsort(-values, kind="stable"):
        if values[i] <= least:
            break
        if all(np.abs(places[i] - place).max() >= apart for place in found):
            found.append(places[i])
    return np.array(found, np.int64).reshape(-1, 2)


def scene(faces, others, stream):
    """A picture of 6x6 patches, some of them faces; (picture, places of the faces)."""
    cells = permutation(GRID * GRID, *stream.take(2 * GRID * GRID))
    picture, places = np.empty((GRID * SIDE, GRID * SIDE), np.uint8), []
    for i, cell in enumerate(cells):
        y, x = divmod(int(cell), GRID)
        patch = faces[i % len(faces)] if i < FACES else others[(i - FACES) % len(others)]
        picture[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = patch
        if i < FACES:
            places.append((y * SIDE, x * SIDE))
    return picture, np.array(places)


def matched(found, places):
    """(faces found, false alarms): a find counts where it is at most 8 pixels off, once for each face."""
    hits, left = 0, [tuple(p) for p in places]
    for place in found:
        near = next((p for p in left if np.abs(place - p).max() <= 8), None)
        if near is not None:
            left.remove(near)
            hits += 1
    return hits, len(found) - hits


def alarms_of(score, faces, others, stream, pictures=6, most=300):
    """Windows of made pictures that score as faces and hold none: what the network has yet to learn.

    Source: Sung & Poggio, "Example-based learning for view-based human face detection" (1998).
    """
    wrong = []
    for _ in range(pictures):
        picture, places = scene(faces, others, stream)
        patches, at = windows(picture)
        far = np.abs(at[:, None] - places[None]).max(2).min(1) > 8
        wrong.append(patches[far & (score(patches) > 0.2)])
    wrong = np.concatenate(wrong)
    return wrong[np.sort(permutation(len(wrong), *stream.take(2 * len(wrong)))[:most])][..., 0]


def trained(x, y, epochs, config):
    """(model, score): a network that has seen the patches and, in a second round, its own false alarms."""
    stream = Stream(config.seed).split("alarms")
    for last in (False, True):
        model = config.place(CNN("small", width=8, dropout=0.1, seed=config.seed))
        model.fit(x, y, epochs=epochs, batch_size=16, lr=2e-3, augment=AUGMENT, schedule=cosine(0.1))
        score = lambda patches, model=model: model.predict_proba(patches)[:, 1]
        if not last:
            wrong = alarms_of(score, x[y == 1], x[y == 0], stream)
            x = np.concatenate([x, x[y == 1], x[y == 1], wrong])
            y = np.concatenate([y, np.ones(2 * (y == 1).sum(), np.int64), np.zeros(len(wrong), np.int64)])
    return model, score


def run(config):
    """Train and judge, out of the folds; see `fastdl.recipes`."""
    config.needs_no_checkpoint("face-detect")
    need_scikit_learn("face-detect")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise data.MissingDataError("face-detect", "a folder of data sets, in --data or in FASTDL_DATA", "neither")
    arrays = data.read_npz(folder / "faces-lfw-subset" / "lfw_subset.npz", ("images", "is_face"))
    x, y = arrays["images"], arrays["is_face"].astype(np.int64)
    epochs, rows = config.epochs or EPOCHS["lfw_subset"], x.reshape(len(x), -1) / 255.0
    place, p, base = folds(rows, y, FOLDS), np.empty(len(y)), np.empty(len(y))
    hits = alarms = asked = 0
    scenes = Stream(config.seed).split("scenes")
    for fold in range(FOLDS):
        held, kept = place == fold, place != fold
        model, score = trained(x[kept], y[kept], epochs, config)
        p[held] = score(x[held])
        base[held] = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(rows[kept], y[kept]).decision_function(rows[held])
        for _ in range(4):
            picture, places = scene(x[held & (y == 1)], x[held & (y == 0)], scenes)
            good, bad = matched(find(score, picture), places)
            hits, alarms, asked = hits + good, alarms + bad, asked + len(places)
        if config.show:
            right = np.mean((p[held] > 0.5) == y[held])
            config.show(f"fold {fold + 1}: {right:.3f} of the patches, {hits} of {asked} faces and {alarms} false alarms so far")
    metrics = {
        "test_accuracy": float(np.mean((p > 0.5) == y)),
        "auc": auc(p, y),
        "baseline_accuracy": float(np.mean((base > 0) == y)),
        "baseline_auc": auc(base, y),
        "found": hits / asked,
        "false_alarms_a_picture": alarms / (4 * FOLDS),
    }
    settings = {"data_set": "lfw_subset", "splits": f"{FOLDS} folds by hash", "epochs": epochs, "seed": config.seed,
                "threads": get_num_threads(), "model": repr(model)}  # fmt: skip
    return Report(
        metrics, settings, model, (x[held], y[held]), ("other", "face"), draw=lambda path: draw(path, score, picture, places)
    )


def draw(path, score, picture, places):
    """A picture with the faces that are there (green) and those that were found (red)."""
    from .. import plot

    figure, ax = plot.require().subplots()
    ax.imshow(picture, cmap="gray")
    for where, colour, shrink in ((places, "tab:green", 0), (find(score, picture), "tab:red", 2)):
        for y, x in where:
            corners = np.array([0, 0, 1, 1, 0]), np.array([0, 1, 1, 0, 0])
            side = SIDE - 1 - 2 * shrink
            ax.plot(x + shrink + side * corners[1], y + shrink + side * corners[0], color=colour)
    ax.set_axis_off()
    figure.savefig(path, dpi=110)
    plot.require().close(figure)

"""What people hand to models: odd arrays and arguments are named, never learned from in silence."""

import gc
import warnings
import weakref

import numpy as np
import pytest

from fastdl import data, nn, optim
from fastdl.models import (
    CNN,
    DBM,
    DBN,
    GAN,
    MLP,
    RBM,
    RNTN,
    Autoencoder,
    Captioner,
    CharLM,
    ClassificationRBM,
    CNNRegressor,
    ConvolutionalRBM,
    Forecaster,
    MLPRegressor,
    Perceptron,
    RNNClassifier,
    RNNRegressor,
    SoftmaxRegression,
    WordLM,
    load,
)
from fastdl.models.pca import PCA
from fastdl.random import Stream, permutation, uniform

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 5))
Y = (X[:, 0] > 0).astype(int)
BITS = (RNG.random((40, 6)) < 0.4).astype(float)
IMAGES = RNG.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
WAVE = np.sin(np.arange(120) * 0.3)
TEXT = "the cat sat on the mat. " * 20
TREES = data.parse_trees("(1 (1 good) (1 (0 a) (0 film))) (2 (2 bad) (2 (0 a) (0 film))) (0 word)")


def mlp(y=Y, **options):
    return MLP((4,)).fit(X, y, **{"epochs": 1} | options)


def char_lm(**options):
    return CharLM(units=4, embedding=4).fit(TEXT, **{"epochs": 1, "batch_size": 4, "window": 8} | options)


def captioner(captions=("a red dog",) * 8, settings=None, **options):
    small = {"filters": (4,), "features": 4, "units": 4, "embedding": 4} | (settings or {})
    return Captioner(**small).fit(IMAGES, captions, epochs=1, **options)


def rntn(trees=TREES, **options):
    return RNTN(width=4).fit(trees, epochs=1, **options)


def stack():
    return DBN((4,)).pretrain(BITS, epochs=1)


def rbm(**options):
    return RBM(4).fit(BITS, **{"epochs": 1} | options)


def nan(a):
    return np.full_like(a, np.nan, dtype=float)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        # arrays
        (lambda: MLP((4,)).fit([[1, 2], [3]], [0, 1]), ValueError, "X: expected samples of one shape"),
        (lambda: MLP((4,)).fit(None, Y), TypeError, "X: expected an array or what makes one; got None"),
        (lambda: MLP((4,)).fit(X, None), TypeError, "y: expected an array or what makes one; got None"),
        (lambda: MLP((4,)).fit(np.ma.masked_array(X, X > 1, np.float32), Y), TypeError, "X: expected an array without masked"),
        (lambda: MLP((4,)).fit(np.where(Y[:, None], X, "a").astype(object), Y), TypeError, "real numbers; got a str, '"),
        (lambda: MLP((4,)).fit({"a": X}, Y), TypeError, "X: expected an array of real numbers; got a dict"),
        (lambda: MLP((4,)).fit(X * 1e200, Y), ValueError, "X: expected numbers within float32's range"),
        (lambda: MLP((4,)).fit(X[:, :0], Y), ValueError, "X: expected one value a sample or more; got samples of shape"),
        (lambda: MLP((4,)).fit(X, [0, "a"] * 20), TypeError, "y: expected integer or string labels; got some of both"),
        (lambda: mlp().predict(nan(X)), ValueError, "X: expected samples for which the network gives numbers; got NaN for 40"),
        (lambda: Perceptron().fit(nan(X), Y), ValueError, "X: expected finite numbers"),
        (lambda: mlp().score(X, np.where(Y, "1", "0")), ValueError, "y: expected labels such as 0; got <U1"),
        (lambda: mlp(Y.astype("S1")).score(X, Y.astype("U1")), ValueError, "y: expected labels such as b'0'; got <U1"),
        (lambda: mlp(Y.astype("U1")).score(X, Y.astype("S1")), ValueError, "y: expected labels such as '0'; got .S1"),
        (lambda: mlp().score(X[:0], Y[:0]), ValueError, "X: expected one sample or more; got none"),
        (lambda: mlp(validation=(X[:0], Y[:0])), ValueError, "validation X: expected one sample or more; got none"),
        (lambda: MLPRegressor((4,)).fit(X, X[:, 0] * 1e200), ValueError, "y: expected numbers whose squares are below 1e308"),
        (lambda: RNNClassifier(units=4).fit([[[1.0], [2, 3]], [[1.0]]], [0, 1]), ValueError, r"X\[0\]: expected steps of one"),
        (lambda: DBM((3, 2)).fit(BITS, epochs=1).transform(BITS * 3), ValueError, "X: expected values from 0 to 1"),
        (lambda: DBM((3, 2)).fit(BITS, epochs=1).transform(nan(BITS)), ValueError, "X: expected values from 0 to 1"),
        (lambda: Autoencoder((4,), code=2).fit(X), ValueError, "X: expected values from 0 to 1, which output 'sigmoid' gives"),
        (lambda: Autoencoder((4,), code=2).fit(BITS, validation=X[:, [0] * 6]), ValueError, "validation: expected values from"),
        (lambda: Autoencoder((4,), code=2).fit(BITS, validation=BITS[:0]), ValueError, "validation: expected one sample or more"),
        (lambda: Autoencoder((4,), code=2).fit(BITS, epochs=1).score(BITS[:0]), ValueError, "X: expected one sample or more"),
        (lambda: GAN(hidden=(4,)).fit(X, batch_size=10), ValueError, "X: expected values from 0 to 1, which output 'sigmoid'"),
        (lambda: GAN(output="tanh").fit(3 * X, batch_size=10), ValueError, "X: expected values from -1 to 1, which output"),
        (lambda: rbm().score(BITS[:0]), ValueError, "X: expected one sample or more; got none"),
        (lambda: ClassificationRBM(4).fit(BITS, Y, epochs=1).sample(label=[0, 1]), ValueError, "label: expected one of .0, 1."),
        (lambda: ClassificationRBM(4).fit(BITS, Y, epochs=1).sample(label="a"), ValueError, "label: expected labels from .0"),
        (lambda: rntn().sketch("(1 a)"), TypeError, "tree: expected a Tree .*; got str"),
        # settings and arguments
        (lambda: MLP((0,)), ValueError, "hidden: expected at least 1; got 0"),
        (lambda: MLP("8"), TypeError, "hidden: expected integers, one a layer; got '8'"),
        (lambda: MLP((4,), dropout=1.0), ValueError, "dropout: expected 0 <= dropout < 1; got 1.0"),
        (lambda: MLP((4,), seed="a").fit(X, Y), TypeError, "seed: expected an integer; got str"),
        (lambda: MLP((4,), seed=-1).fit(X, Y), ValueError, r"seed: expected an integer from 0 to 2\*\*64 - 1; got -1"),
        (lambda: MLP((4,), seed=2.5).fit(X, Y), TypeError, "seed: expected an integer; got float"),
        (lambda: Stream(2**64), ValueError, r"seed: expected an integer from 0 to 2\*\*64 - 1; got 18446744073709551616"),
        (lambda: Stream(0, -1), ValueError, r"offset: expected an integer from 0 to 2\*\*64 - 1; got -1"),
        (lambda: Stream(X), TypeError, "seed: expected an integer; got ndarray"),
        (lambda: Stream(0, 2.5), TypeError, "offset: expected an integer; got float"),
        (lambda: uniform(3, seed=-1), ValueError, r"seed: expected an integer from 0 to 2\*\*64 - 1; got -1"),
        (lambda: uniform("a"), TypeError, "shape: expected an integer; got str"),
        (lambda: uniform((2, -1)), ValueError, r"shape: expected sizes from 0 on; got \(2, -1\)"),
        (lambda: uniform(3, low="a"), TypeError, "low: expected a number; got str"),
        (lambda: permutation(-1), ValueError, "n: expected sizes from 0 on; got -1"),
        (lambda: permutation(2.5), TypeError, "n: expected an integer; got float"),
        (lambda: permutation(3, 0, -1), ValueError, r"offset: expected an integer from 0 to 2\*\*64 - 1; got -1"),
        (lambda: CNN(width=2.5), TypeError, "width: expected an integer; got float"),
        (lambda: CNN(image_shape=(64,)), ValueError, "image_shape: expected"),
        (lambda: mlp(epochs=1.5), TypeError, "epochs: expected an integer; got float"),
        (lambda: mlp(batch_size=None), TypeError, "batch_size: expected an integer; got NoneType"),
        (lambda: mlp(patience=0), ValueError, "patience: expected at least 1; got 0"),
        (lambda: mlp(watch="val_loss"), ValueError, "watch: expected one of loss; got 'val_loss'"),
        (lambda: mlp(watch="seconds"), ValueError, "watch: expected one of loss; got 'seconds'"),
        (lambda: mlp(epochs=2, schedule=lambda t, total: 0.5 - t), ValueError, "schedule: expected 0 or more; got -0.5"),
        (lambda: rbm(schedule=lambda t, total: -1), ValueError, "schedule: expected 0 or more; got -1"),
        (lambda: rbm(schedule=lambda t, total: None), TypeError, "schedule: expected 0 or more; got None"),
        (lambda: GAN(hidden=(4,)).fit(BITS, schedule=lambda t, total: -1), ValueError, "schedule: expected 0 or more; got -1"),
        (lambda: mlp(lr="fast"), TypeError, "lr: expected a number; got str"),
        (lambda: mlp(smoothing="x"), ValueError, "smoothing: expected 0 <= smoothing < 1; got 'x'"),
        (lambda: mlp(smoothing=np.nan), ValueError, "smoothing: expected 0 <= smoothing < 1; got nan"),
        (lambda: mlp(validation=np.nan), ValueError, r"validation: expected \(X, y\) or a share between 0 and 1 .*; got nan"),
        (lambda: MLP((4,)).build("a", 2), ValueError, "input_shape: expected the sizes of one sample, whole numbers; got 'a'"),
        (lambda: Perceptron().fit(X, Y, lr=-1), ValueError, "lr: expected a number above 0; got -1"),
        (lambda: Perceptron().fit(X, Y, epochs=0), ValueError, "epochs: expected at least 1; got 0"),
        (lambda: CharLM(cell="foo"), ValueError, "cell: expected one of lstm, gru, rnn; got 'foo'"),
        (lambda: char_lm(vocabulary="abc"), TypeError, "vocabulary: expected a fastdl.data.Vocabulary; got str"),
        (lambda: char_lm(validation="t"), ValueError, "validation: expected two symbols or more; got 1"),
        (lambda: char_lm().sample(-1), ValueError, "n: expected 0 or more; got -1"),
        (lambda: char_lm().sample(3, top_k=1.5), TypeError, "top_k: expected an integer; got float"),
        (lambda: char_lm().next("a", k=-1), ValueError, "k: expected at least 1; got -1"),
        (lambda: char_lm().nats(TEXT, window=0), ValueError, "window: expected at least 1; got 0"),
        (lambda: Forecaster(window=8).fit(WAVE, validation=200), ValueError, "series: expected 9 values.* 200 of 120 set aside"),
        (lambda: Forecaster(8, ahead=3).fit(WAVE, validation=1), ValueError, "validation: expected at least ahead=3 values"),
        (lambda: Forecaster(window=8).fit(WAVE * 1e200), ValueError, "series: expected numbers whose squares"),
        (lambda: Forecaster(alpha=np.nan), ValueError, "alpha: expected 0 or more; got nan"),
        (lambda: rntn("(1 (1 a)(0 b))"), TypeError, "trees: expected a sequence of Tree objects"),
        (lambda: rntn().predict(TREES[0]), TypeError, "trees: expected a sequence of Tree objects"),
        (lambda: rntn().score([]), ValueError, "trees: expected one tree or more; got none"),
        (lambda: rntn(validation=[]), ValueError, "validation: expected one tree or more; got none"),
        (lambda: rntn(root_weight=-1), ValueError, "root_weight: expected 0 or more; got -1"),
        (lambda: RNTN(dropout=1.0), ValueError, "dropout: expected"),
        (lambda: CNN("lenet5").fit(IMAGES, Y[:8]), ValueError, "X: expected images of at least 12x12 pixels, for .*; got .8, 8"),
        (lambda: CNNRegressor("lenet5").fit(IMAGES, Y[:8]), ValueError, "X: expected images of at least 12x12 pixels"),
        (lambda: CNN().build(28, 10), ValueError, r"input_shape: expected .rows, columns, channels.; got \[28\]"),
        (lambda: CNN("lenet5").build((28, 28), 10), ValueError, r"input_shape: expected .rows, columns, .*; got \[28, 28\]"),
        (lambda: captioner(settings={"filters": (2,) * 4}), ValueError, "X: expected images of at least 16x16 .*; got .8, 8"),
        (lambda: captioner("a red d"), TypeError, "captions: expected a sequence of strings"),
        (lambda: captioner([["a", "dog"]] * 8), TypeError, "captions: expected strings of words between blanks; got list"),
        (lambda: captioner(["a <end> b"] * 8), ValueError, "captions: expected words other than '<end>'"),
        (lambda: captioner(validation=0.5), TypeError, "validation: expected .X, captions.; got float"),
        (lambda: captioner().caption(nan(IMAGES)), ValueError, "X: expected images of finite numbers"),
        (lambda: captioner().caption(IMAGES, known=IMAGES), TypeError, "known: expected .X, captions.; got ndarray"),
        (lambda: captioner(settings={"bag": -1}), ValueError, "bag: expected 0 or more; got -1"),
        (lambda: captioner(settings={"features": 0}), ValueError, "features: expected at least 1; got 0"),
        (lambda: rbm(batch_size=2.5), TypeError, "batch_size: expected an integer; got float"),
        (lambda: rbm(algorithm="fpcd", fast_lr=-1), ValueError, "fast_lr: expected 0 or more; got -1"),
        (lambda: rbm(schedule="cosine"), TypeError, "schedule: expected a function .fastdl.schedules makes some.; got 'cosine'"),
        (lambda: GAN(smoothing="a"), ValueError, "smoothing: expected 0 <= smoothing < 1; got 'a'"),
        (lambda: GAN(average=1), ValueError, "average: expected 0 <= average < 1; got 1"),
        (lambda: GAN(clip_weights="a"), TypeError, "clip_weights: expected 0 or more; got 'a'"),
        (lambda: GAN(hidden=(4,)).fit(BITS, lr_d=-1), ValueError, "lr_d: expected 0 or more; got -1"),
        (lambda: Perceptron().fit(X, Y, lr="a"), TypeError, "lr: expected a number above 0; got 'a'"),
        (lambda: rbm().sample(-1), ValueError, "n: expected 0 or more; got -1"),
        (lambda: rbm().impute(nan(BITS), samples=0), ValueError, "samples: expected at least 1; got 0"),
        (lambda: DBN(()), ValueError, "hidden: expected one layer or more"),
        (lambda: stack().predict(BITS), RuntimeError, "DBN: expected a classifier trained by fit; got a stack alone"),
        (lambda: stack().fine_tune(BITS, lr=-1), ValueError, "lr: expected 0 or more; got -1"),
        (lambda: stack().fine_tune(BITS, batch_size=0), ValueError, "batch_size: expected at least 1; got 0"),
        (lambda: stack().lower_bound(BITS, 4, 10, samples=0), ValueError, "samples: expected at least 1; got 0"),
        (lambda: Autoencoder(noise="foo"), ValueError, "noise: expected None, 'gaussian', 'mask' or 'salt'; got 'foo'"),
        (lambda: Autoencoder(code=0), ValueError, "code: expected at least 1; got 0"),
        (lambda: Autoencoder.from_rbms([1]), ValueError, r"rbms\[0\]: expected an RBM or .w, b_visible, b_hidden.; got int"),
        (lambda: GAN(latent=2.5), TypeError, "latent: expected an integer; got float"),
        (lambda: Autoencoder(noise="mask", noise_level="a"), TypeError, "noise_level: expected 0 or more; got 'a'"),
        (lambda: Autoencoder(sparsity="a", code_act="sigmoid"), TypeError, "sparsity: expected a finite number; got 'a'"),
        (lambda: Autoencoder(contraction="a"), TypeError, "contraction: expected 0 or more; got 'a'"),
        (lambda: Autoencoder(beta="a"), TypeError, "beta: expected 0 or more; got 'a'"),
        (lambda: Autoencoder(sparsity_weight="a"), TypeError, "sparsity_weight: expected 0 or more; got 'a'"),
        (lambda: ClassificationRBM(weight="a"), TypeError, "weight: expected 0 or more; got 'a'"),
        (lambda: ConvolutionalRBM(sparsity="a"), TypeError, "sparsity: expected a finite number; got 'a'"),
        (lambda: ConvolutionalRBM(sparsity_weight=-1), ValueError, "sparsity_weight: expected 0 or more; got -1"),
        (lambda: ConvolutionalRBM().fit(IMAGES, batch_size="a"), TypeError, "batch_size: expected an integer; got str"),
        (lambda: rbm().log_likelihood(BITS, "a"), TypeError, "log_z: expected a finite number; got 'a'"),
        (lambda: DBM((3, 2)).fit(BITS, epochs=0).lower_bound(BITS, "a"), TypeError, "log_z: expected a finite number; got 'a'"),
        (lambda: DBN((4,)).pretrain(BITS, show=3), TypeError, "show: expected a function; got int"),
        (lambda: RBM(4, variance=True).fit(BITS), TypeError, "variance: expected a number above 0, .*; got True"),
        (lambda: RBM(4, variance=[1.0]).fit(BITS), TypeError, "variance: expected a number above 0, .*; got .1.0."),
        (lambda: RBM(4, variance="all").fit(BITS), ValueError, "variance: expected a number above 0, .*; got 'all'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_counts_may_be_of_numpy_and_are_no_truths():
    """Beside the whole numbers of 64 bits that place random draws NumPy's would overflow."""
    two, three = np.int64(2), np.uint8(3)
    for make, call in (
        (lambda n: RBM(n(4)).fit(BITS, epochs=n(1), k=n(2), chains=n(5)), lambda m, n: m.sample(n(2), n(3))),
        (lambda n: RBM(4).partial_fit(BITS, k=n(2)), lambda m, n: m.gibbs(BITS, n(2))),
        (lambda n: rbm(), lambda m, n: m.impute(np.where(BITS, np.nan, 0), n(2), n(3))),
        (lambda n: rbm(), lambda m, n: m.anneal(n(3), n(4), reverse_steps=n(2)).weights),
        (lambda n: DBM((n(3), n(2)), n(2)).fit(BITS, epochs=1, k=n(2)), lambda m, n: m.sample(n(2), n(3))),
        (lambda n: DBN((4,)).pretrain(BITS, epochs=n(1)).fine_tune(BITS, epochs=n(1), k=n(2)), lambda m, n: m.sample(n(2), n(3))),
        (lambda n: ClassificationRBM(n(4), k=n(2)).fit(BITS, Y, epochs=1), lambda m, n: m.sample(n(2), steps=n(3))[0]),
        (lambda n: ConvolutionalRBM(n(2), n(3)).fit(GREY, epochs=1, k=n(2)), lambda m, n: m.sample(n(2), n(3))),
        (lambda n: GAN(latent=n(3), hidden=(4,), steps_d=n(2)).fit(BITS, epochs=1, batch_size=n(9)), lambda m, n: m.sample(n(2))),
        (lambda n: CharLM(units=n(4), embedding=n(4)).fit(TEXT, epochs=1, batch_size=n(4), window=n(8)),
         lambda m, n: np.array(list(m.sample(n(5))))),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # too short to learn variety
            plain = call(make(int), int)
            np.testing.assert_array_equal(call(make(np.int64), np.int64), plain)
            np.testing.assert_array_equal(call(make(np.uint8), np.uint8), plain)
    assert repr(RBM(two, visible_group=three)) == "RBM(hidden=2, visible_group=3, seed=0)"
    for make, name in (
        (lambda: RBM(True), "hidden"),
        (lambda: RBM(4).fit(BITS, k=True), "k"),
        (lambda: MLP((True,)), "hidden"),
        (lambda: GAN(latent=True), "latent"),
        (lambda: Captioner(units=True), "units"),
        (lambda: RNTN(width=True), "width"),
        (lambda: RNNClassifier(vocabulary=True), "vocabulary"),
        (lambda: mlp(epochs=True), "epochs"),
        (lambda: char_lm(window=True), "window"),
    ):
        with pytest.raises(TypeError, match=f"{name}: expected an integer; got bool"):
            make()


def test_a_machine_is_what_it_says_from_the_beginning():
    for wrong, message in (
        ({"hidden": 0}, "hidden: expected at least 1; got 0"),
        ({"visible": "poisson"}, "visible: expected one of bernoulli, gaussian, softmax; got 'poisson'"),
        ({"variance": -1}, "variance: expected a number above 0, 'data' or 'learned'; got -1"),
        ({"hidden": 5, "hidden_units": "softmax", "hidden_group": 2}, "hidden_group: expected a divisor of 5 units"),
    ):
        with pytest.raises(ValueError, match=message):
            RBM(**wrong)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: MLP(act="foo"), ValueError, "act: expected one of none, relu, leaky_relu, sigmoid, tanh, gelu; got 'foo'"),
        (lambda: MLPRegressor(act=[]), ValueError, r"act: expected one of none, .*; got \[\]"),
        (lambda: Autoencoder(act=["relu"]), ValueError, r"^act: expected one of none, .*; got \['relu'\]"),
        (lambda: Autoencoder(code_act="foo"), ValueError, "^code_act: expected one of none, .*; got 'foo'"),
        (lambda: Autoencoder(kind="conv", image_shape=(8,)), ValueError, r"image_shape: expected .rows, .*; got \(8,\)"),
        (lambda: ConvolutionalRBM(image_shape="8x8"), TypeError, "image_shape: expected integers, .*; got '8x8'"),
        (lambda: RNNClassifier(cell=["lstm"]), ValueError, r"cell: expected one of lstm, gru, rnn; got \['lstm'\]"),
        (lambda: CharLM(cell=None), ValueError, "cell: expected one of lstm, gru, rnn; got None"),
        (lambda: Forecaster(cell={}), ValueError, "cell: expected one of lstm, gru, rnn; got {}"),
        (lambda: RNTN(cell=[]), ValueError, r"cell: expected one of rntn, plain, treelstm; got \[\]"),
        (lambda: GAN(loss=["hinge"]), ValueError, "loss: expected one of non_saturating, .*; got"),
        (lambda: WordLM(unknown=[]), TypeError, "unknown: expected symbols such as characters and words; got list"),
    ],
)
def test_words_that_are_not_known_are_named_at_once(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_no_samples_are_drawn_where_none_are_wanted():
    for model in (
        rbm(), stack(), DBM((3, 2)).fit(BITS, epochs=1), ConvolutionalRBM(2, 3).fit(GREY, epochs=1),
        ClassificationRBM(4).fit(BITS, Y, epochs=1), Autoencoder((4,), 2, variational=True).fit(BITS, epochs=1),
        GAN(hidden=(4,)).fit(BITS, epochs=1, on_collapse="ignore"),
    ):  # fmt: skip
        steps = {} if isinstance(model, (Autoencoder, GAN)) else {"steps": 3}
        some, none = model.sample(2, **steps), model.sample(0, **steps)
        for a, b in zip(some, none, strict=True) if isinstance(some, tuple) else [(some, none)]:
            assert b.dtype == a.dtype and b.shape == (0, *a.shape[1:])
        one = model.sample(**steps)
        assert len(one[0] if isinstance(one, tuple) else one) == 1
        if steps:
            assert len(model.sample(2, steps=0)[0]) == len(some[0])  # where the chains are
            with pytest.raises(ValueError, match="steps: expected 0 or more; got -1"):
                model.sample(2, steps=-1)


def test_tables_of_numbers_and_booleans_are_numbers():
    """NumPy makes objects of a table whose columns are of several kinds."""
    mixed = np.column_stack([X.astype(object), X[:, 0] > 0])
    model = MLP((4,)).fit(mixed, Y, epochs=1)
    assert np.array_equal(model.predict_proba(mixed), model.predict_proba(mixed.astype(float)))


def test_labels_may_be_strings_of_variable_length():
    names = np.where(Y, "yes", "no")
    model = MLP((4,)).fit(X, names.astype(np.dtypes.StringDType()), epochs=1)
    assert model.classes_.tolist() == ["no", "yes"] and set(model.predict(X)) <= {"no", "yes"}


def test_labels_and_targets_may_be_columns_of_a_table_of_several_kinds():
    """A column of NumPy's objects, as tables of integers with gaps have them."""
    model = MLP((4,)).fit(X, Y.astype(object), epochs=1)
    assert model.classes_.dtype == np.int64 and model.score(X, Y.astype(object)) == model.score(X, Y)
    assert MLP((4,)).fit(X, (Y > 0).astype(object), epochs=1).classes_.dtype == bool
    assert MLP((4,)).fit(X, Y.astype(object) * 2**63, epochs=1).classes_.tolist() == [0, 2**63]
    quantities = X[:, 1].astype(object)
    a, b = (MLPRegressor((4,)).fit(X, y, epochs=1).predict(X) for y in (quantities, X[:, 1]))
    assert np.array_equal(a, b)
    for wrong in (np.where(Y, None, 1), np.where(Y, 1.5, Y.astype(object)), np.array([[1], [1, 2]] * 20, object)[:, None]):
        with pytest.raises(TypeError, match="y: expected integer or string labels; got "):
            MLP((4,)).fit(X, wrong, epochs=1)
    with pytest.raises(TypeError, match="y: expected an array of real numbers; got a NoneType"):
        MLPRegressor((4,)).fit(X, np.where(Y, None, 1), epochs=1)


@pytest.mark.parametrize("shape", [np.array([4, 4]), [4, np.int64(4)], (4, 4)], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda shape: CNN(width=2, image_shape=shape).fit(np.eye(16), np.arange(16) % 2, epochs=1),
        lambda shape: ConvolutionalRBM(2, 3, image_shape=shape).fit(np.eye(16), epochs=1),
        lambda shape: Autoencoder((2,), code=2, kind="conv", image_shape=shape).fit(np.eye(16), epochs=1),
    ],
)
def test_a_shape_of_images_may_be_an_array(make, shape, tmp_path):
    model = make(shape)
    assert "image_shape=(4, 4)" in repr(model)
    model.save(tmp_path / "m")
    assert repr(load(tmp_path / "m")) == repr(model)


def test_words_may_not_be_arrays():
    with pytest.raises(ValueError, match="architecture: expected 'small', 'lenet5' or a function; got array"):
        CNN(np.array([1, 2]))
    with pytest.raises(ValueError, match="norm: expected None, 'batch' or 'layer'; got array"):
        MLP(norm=np.array([1, 2]))


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (data.Augment(crop=9), r"augment: expected .* that the network takes; got \[9, 9, 1\] of \[12, 12, 1\] \(w: "),
        (data.Augment(crop=13), "crop: expected at most 12 x 12, the size of the images; got 13 x 13"),
    ],
)
def test_a_crop_that_does_not_fit_costs_nothing(augment, message):
    images = np.random.default_rng(1).random((40, 12, 12, 1))
    model = CNN(width=2).fit(images, Y, epochs=1)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(images, Y, epochs=1, augment=augment)
    assert all(np.array_equal(w, before[name]) for name, w in model.get_weights().items())


def test_a_crop_is_taken_by_a_network_of_any_size():
    images = np.random.default_rng(1).random((40, 12, 12, 1))
    model = CNN(lambda n: nn.Sequential(nn.Conv2d(4, 3), nn.GlobalAvgPool2d(), nn.Dense(n)))
    assert model.fit(images, Y, epochs=1, augment=data.Augment(crop=9)).predict(images).shape == (40,)


def test_a_perceptron_whose_weights_overflow_says_so():
    with pytest.raises(FloatingPointError, match="weights: expected finite numbers; got infinite ones in epoch 1"):
        Perceptron().fit(X * 1e30, Y, lr=1e30)


BLACK = "X: expected uint8 up to 255, read as values from 0 to 1; got none above 1"


@pytest.mark.parametrize(
    "fit",
    [
        lambda x: MLP((4,)).fit(x, Y, epochs=1),
        lambda x: RBM(4).fit(x, epochs=1),
        lambda x: RBM(4).partial_fit(x),
        lambda x: RNNClassifier(units=4).fit(x, Y, epochs=1),
        lambda x: RNNClassifier(units=4).fit([row[:, None] for row in x], Y, epochs=1),
        lambda x: Autoencoder((4,), code=2).fit(x, epochs=1),
    ],
)
def test_bits_in_bytes_are_not_taken_for_black_images(fit):
    """uint8 is read as values in [0,1]: of 0 and 1 alone nothing would be learned, and nothing said."""
    bits = BITS.astype(np.uint8)
    with pytest.raises(ValueError, match=BLACK):
        fit(bits)
    model = fit(BITS)
    with pytest.warns(UserWarning, match="X: uint8 of which none is above 1 is read as values from 0 to 1, all but black"):
        getattr(model, "predict", getattr(model, "transform", None))(bits)
    fit(255 * bits)
    fit(0 * bits)  # images may be black
    dark = MLP((4,)).fit(255 * bits, Y, epochs=1)
    assert dark.predict(bits).shape == (40,)  # it learned from bytes


def kinds_of_fit():
    """By name: a fit that works, and arguments that end the next one before it has trained."""
    return {
        "MLP": (lambda m, **how: m.fit(X, Y, **how), MLP((4,)), {"warmstart": True}),
        "regressor": (lambda m, **how: m.fit(X, X[:, 0], **how), MLPRegressor((4,)), {"lr": "fast"}),
        "RBM": (lambda m, **how: m.fit(BITS, **how), RBM(4), {"resume": "/no/such/file"}),
        "GAN": (lambda m, **how: m.fit(BITS, on_collapse="ignore", **how), GAN(hidden=(4,)), {"optimizer": "nadam"}),
        "autoencoder": (lambda m, **how: m.fit(BITS, **how), Autoencoder((4,), 2), {"batch_size": 0}),
        "trees": (lambda m, **how: m.fit(TREES, **how), RNTN(4), {"epoch": 3}),
        "text": (lambda m, **how: m.fit(TEXT, batch_size=4, window=8, **how), CharLM(units=4, embedding=4), {"lr": -1}),
        "stack": (lambda m, **how: m.pretrain(BITS, **how), DBN((4,)), {"lr": [0.1, 0.2]}),
        "perceptron": (lambda m, **how: m.fit(X, Y, **how), Perceptron(), {"lr": -1}),
    }


@pytest.mark.parametrize("name", kinds_of_fit())
def test_a_wrong_argument_costs_nothing(name):
    """A misspelt warm_start would have thrown away what was learned, and left a network that was never trained."""
    fit, model, wrong = kinds_of_fit()[name]
    with pytest.raises((ValueError, TypeError, FileNotFoundError)):
        fit(model, **wrong)
    assert not hasattr(model, "module_") and not hasattr(model, "stack_")
    fit(model, epochs=2)
    learned, history = model.get_weights(), getattr(model, "history_", None)
    with pytest.raises((ValueError, TypeError, FileNotFoundError)):
        fit(model, **wrong)
    for key, value in model.get_weights().items():
        np.testing.assert_array_equal(value, learned[key])
    assert getattr(model, "history_", None) is history


def test_what_a_family_gives_the_loop_itself_is_no_option_of_its_fit():
    wave = {"units": 2, "window": 8}
    for fit, names in (
        (mlp, ("loss", "metrics", "module")),
        (lambda **how: MLPRegressor((4,)).fit(X, X[:, 0], **how), ("metrics", "x")),
        (char_lm, ("loss", "metrics", "shuffle")),
        (lambda **how: Forecaster(**wave).fit(WAVE, **how), ("y",)),
        (captioner, ("loss", "metrics")),
        (rntn, ("loss", "metrics")),
        (lambda **how: Autoencoder((4,), 2).fit(BITS, **how), ("loss",)),
        (lambda **how: ConvolutionalRBM(2, 3).fit(IMAGES, **how), ("loss", "metrics", "validation")),
        (lambda **how: DBN((4,)).fit(BITS, Y, pretrain={"epochs": 10**9}, **how), ("loss", "metrics")),  # before it is trained
    ):
        for name in names:
            with pytest.raises(TypeError, match=rf"^fit\(\) got an unexpected keyword argument '{name}'$"):
                fit(**{name: None})


def test_a_text_that_is_not_trained_on_leaves_no_states(tmp_path):
    model = char_lm()
    before = model.get_weights()
    with pytest.raises(ValueError, match="checkpoint: expected a file in a folder that exists"):
        model.fit(TEXT, batch_size=4, window=8, warm_start=True, checkpoint=tmp_path / "none" / "c")
    assert model.get_weights().keys() == before.keys()


def test_energies_of_no_samples():
    model = ClassificationRBM(4).fit(BITS, Y, epochs=1)
    assert model.free_energy([], Y[:0]).shape == model.free_energy(BITS[:0], Y[:0]).shape == (0,)
    some = model.sample(3, label=1)
    assert some[1].tolist() == [1, 1, 1] and np.array_equal(some[0], model.sample(3, label=np.int64(1))[0])


def test_a_share_of_samples_may_be_a_number_of_numpys():
    for fit in (
        mlp,
        lambda **how: MLPRegressor((4,)).fit(X, X[:, 0], epochs=1, **how),
        lambda **how: Autoencoder((4,), 2).fit(BITS, epochs=1, **how),
        lambda **how: Perceptron().fit(X, Y, epochs=1, **how),
    ):
        plain, same = (fit(validation=kind(0.25)).history_ for kind in (float, np.float32))
        assert {**same, "seconds": 0} == {**plain, "seconds": 0} and any(name.startswith("val_") for name in plain)
        with pytest.raises(ValueError, match="validation: expected .* a share between 0 and 1 of 40 samples; got 1"):
            fit(validation=np.int64(1))


def test_targets_that_are_only_judged_say_nothing_of_the_scale():
    model = MLPRegressor((4,)).fit(X, X[:, 0], epochs=1, validation=0.25)
    kept, held = model._shares(len(X), 0.25)
    other = X[:, 0].copy()
    other[held] += 1e6
    same = MLPRegressor((4,)).fit(X, other, epochs=1, validation=0.25)
    assert same.mean_ == model.mean_ == pytest.approx(X[kept, 0].mean()) and same.spread_ == model.spread_
    np.testing.assert_array_equal(same.predict(X), model.predict(X))


def test_a_fit_that_begins_lets_the_old_network_go():
    model = MLP((4,)).fit(X, Y, epochs=1)
    old, alive = weakref.ref(model.module_), []
    model.fit(X, Y, epochs=1, callbacks=lambda state: (gc.collect(), alive.append(old() is not None)))
    assert alive == [False]


def test_channels_first_is_told():
    """It would train, on images of three rows."""
    first = IMAGES.transpose(0, 3, 1, 2)
    with pytest.warns(UserWarning, match=r"X: \[8, 3, 8, 8\] is read as images of 3 rows.*transpose\(0, 2") as told:
        CNN(width=2).fit(first, np.arange(8) % 2, epochs=1)
    assert told[0].filename == __file__


def test_one_number_stands_for_one_layer():
    assert MLP(np.array([8, 4])).hidden == (8, 4)
    assert MLP(8).hidden == MLP((8,)).hidden == (8,)
    assert DBN(8).hidden == Autoencoder(8).hidden == GAN(hidden=8).hidden == (8,)


def test_one_callback_needs_no_list():
    seen = []

    def look(state):
        seen.append(state)

    for fit in (
        mlp,
        rbm,
        lambda **how: stack().fine_tune(BITS, **how),
        lambda **how: DBN((4,)).pretrain(BITS, **how),
        lambda **how: DBM((3, 2)).fit(BITS, **how),
        lambda **how: GAN(hidden=(4,)).fit(BITS, on_collapse="ignore", **how),
        lambda **how: Perceptron().fit(X, Y, **how),
    ):
        before = len(seen)
        fit(epochs=1, callbacks=look)
        assert len(seen) == before + 1
        with pytest.raises(TypeError, match="callbacks: expected a function or a sequence of functions; got 3 in it"):
            fit(epochs=1, callbacks=[look, 3])
        assert len(seen) == before + 1  # told before the first epoch, not after it


def test_trees_are_judged_before_it_is_decided_whether_to_stop():
    model = RNTN(width=4).fit(TREES, validation=TREES, epochs=30, patience=2, watch="val_root_accuracy", lr=1e-6)
    history = model.history_
    assert history["stopped"] == "early" and len(history["epoch"]) == len(history["val_loss"]) == 3
    wrong = data.parse_trees("(2 (2 good) (2 (1 a) (1 film)))")
    # the loss of training falls, that of other labels rises: it is the second that counts
    assert RNTN(width=4).fit(TREES, validation=wrong, epochs=60, patience=1, lr=0.05).history_["stopped"] == "early"


def test_labels_of_trees_may_be_numbers():
    tree = data.Tree(0, children=(data.Tree(1, "a"), data.Tree(0, "b")))
    assert set(rntn([tree]).predict([tree])[0]) <= {"0", "1"}


def test_a_text_is_judged_after_every_epoch():
    model = char_lm(validation=TEXT[:100], epochs=2)
    assert len(model.history_["val_loss"]) == 2 and model.history_["val_loss"][-1] == model.nats(TEXT[:100])


def test_sequences_of_no_steps_are_of_any_width():
    model = RNNClassifier(units=4).fit([np.ones((2, 3)), np.zeros((1, 3))] * 4, [0, 1] * 4, epochs=1)
    assert np.array_equal(model.predict_proba([[], []]), model.predict_proba([np.zeros((0, 3))] * 2))


SEQUENCES = [np.full((n % 3 + 1, 2), n, np.float32) for n in range(40)]
GREY = RNG.random((8, 12, 12)).astype(np.float32)
PAIRS = np.tile([[1.0, 0, 1, 0, 0, 1]], (40, 1))
# Models by name, what they were trained on, and what answers for each sample.
ANSWERS = {
    "MLP": (mlp, X, ("predict", "predict_proba", "decision_function")),
    "MLP of words": (lambda: mlp(np.where(Y, "yes", "no")), X, ("predict", "predict_proba")),
    "SoftmaxRegression": (lambda: SoftmaxRegression().fit(X, Y, epochs=1), X, ("predict", "predict_proba")),
    "Perceptron": (lambda: Perceptron().fit(X, Y, epochs=1), X, ("predict", "decision_function")),
    "CNN": (lambda: CNN(width=2).fit(GREY, Y[:8], epochs=1), GREY, ("predict", "predict_proba")),
    "CNN of rows": (
        lambda: CNN("lenet5", (12, 12)).fit(GREY.reshape(8, -1), Y[:8], epochs=1), GREY.reshape(8, -1),
        ("predict", "predict_proba"),
    ),
    "ClassificationRBM": (lambda: ClassificationRBM(4).fit(BITS, Y, epochs=1), BITS, ("predict", "predict_proba")),
    "DBN": (lambda: DBN((4,)).fit(BITS, Y, pretrain=1, epochs=1), BITS, ("predict", "predict_proba", "transform")),
    "RNNClassifier": (
        lambda: RNNClassifier(units=4).fit(SEQUENCES, Y, epochs=1), SEQUENCES,
        ("predict", "predict_proba", "decision_function"),
    ),
    "RNNClassifier of rows": (lambda: RNNClassifier(units=4).fit(X, Y, epochs=1), X, ("predict", "predict_proba")),
    "RNNClassifier of tokens": (
        lambda: RNNClassifier(units=4, vocabulary=5).fit([[1, 2, 3], [4]] * 20, Y, epochs=1), [[1, 2, 3], [4]],
        ("predict", "predict_proba"),
    ),
    "MLPRegressor": (lambda: MLPRegressor((4,)).fit(X, X[:, 0], epochs=1), X, ("predict",)),
    "MLPRegressor of two": (lambda: MLPRegressor((4,)).fit(X, X[:, :2], epochs=1), X, ("predict",)),
    "CNNRegressor": (lambda: CNNRegressor(width=2).fit(GREY, X[:8, :2], epochs=1), GREY, ("predict",)),
    "RNNRegressor": (lambda: RNNRegressor(units=4).fit(SEQUENCES, X[:, 0], epochs=1), SEQUENCES, ("predict",)),
    "Autoencoder": (
        lambda: Autoencoder((4,), 2).fit(BITS, epochs=1), BITS, ("transform", "reconstruct", "score_samples"),
    ),
    "convolutional Autoencoder": (
        lambda: Autoencoder((4,), 2, kind="conv").fit(GREY, epochs=1), GREY, ("transform", "reconstruct", "score_samples"),
    ),
    "PCA": (lambda: PCA(2).fit(X), X, ("transform", "reconstruct", "score_samples")),
    "RBM": (rbm, BITS, ("transform", "reconstruct", "gibbs", "impute", "free_energy", "pseudo_likelihood", "log_likelihood")),
    "Gaussian RBM": (lambda: RBM(4, "gaussian").fit(X, epochs=1), X, ("transform", "reconstruct", "impute", "free_energy")),
    "softmax RBM": (
        lambda: RBM(4, "softmax", visible_group=2).fit(PAIRS, epochs=1), PAIRS, ("transform", "gibbs", "impute", "free_energy"),
    ),
    "ConvolutionalRBM": (
        lambda: ConvolutionalRBM(2, 3).fit(GREY, epochs=1), GREY, ("transform", "reconstruct", "gibbs", "free_energy"),
    ),
    "DBM": (lambda: DBM((3, 2)).fit(BITS, epochs=1), BITS, ("transform", "reconstruct")),
    "GAN": (
        lambda: GAN(hidden=(4,)).fit(BITS, epochs=1, on_collapse="ignore"), BITS, ("decision_function", "discriminate"),
    ),
    "Captioner": (captioner, IMAGES, ("transform", "caption", "hypotheses", "candidates")),
    "RNTN": (rntn, TREES, ("predict", "predict_proba")),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_no_samples_have_no_answers(name):
    """An empty list is as good as an empty array, whatever the shape of a sample."""
    make, full, methods = ANSWERS[name]
    model = make()
    for method in methods:
        ask = getattr(model, method)
        some = ask(full[:2])
        for none in ([], full[:0], () if isinstance(full, list) else np.zeros(0)):
            found = ask(none)
            assert len(some) == 2 and len(found) == 0 and type(found) is type(some)
            if isinstance(some, np.ndarray):
                assert found.dtype == some.dtype and found.shape == (0, *some.shape[1:]), method
    if name not in ("Gaussian RBM", "softmax RBM", "Captioner", "ConvolutionalRBM", "DBM", "GAN", "RNTN"):
        with pytest.raises(ValueError, match="X: expected one sample or more; got none"):
            model.score([], [])


WRONG_BUILDS = {  # of the models above: arguments, and what is said
    "MLP": (("a", 3), ValueError, "input_shape: expected the sizes of one sample"),
    "CNN": (((28,), 3), ValueError, "input_shape: expected .rows, columns, channels.; got .28"),
    "CNN of rows": (((4, 4, 1), 3), ValueError, "X: expected images of at least 12x12 pixels"),
    "DBN": (((3,), 2), ValueError, r"input_shape: expected \[6\], as the stack was made for; got \[3\]"),
    "RNNClassifier": (((3, "a"), 2), ValueError, "input_shape: expected the sizes of one sample, whole numbers; got"),
    "MLPRegressor": (((5,), 2, [1, 2, 3]), ValueError, r"mean: expected a number or shape \[2\]; got \[3\]"),
    "MLPRegressor of two": (((5,), 2, 0.0, [1, 0]), ValueError, r"spread: expected more than 0; got \[1, 0\]"),
    "CNNRegressor": (((12, 12, 1), "two"), TypeError, "outputs: expected an integer; got str"),
    "RNNRegressor": (((3, 2), 1, "a"), TypeError, "mean: expected real numbers; got"),
    "Autoencoder": (("a",), ValueError, "input_shape: expected the sizes of one sample, whole numbers; got 'a'"),
    "convolutional Autoencoder": (((3,),), ValueError, "X: expected images"),
    "RBM": (((0,),), ValueError, "X: expected one column or more; got none"),
    "softmax RBM": (((5,),), ValueError, "visible_group: expected a divisor of 5 units"),
    "ConvolutionalRBM": (((2, 2),), ValueError, "X: expected images of at least 3x3 pixels"),
    "DBM": (((0,),), ValueError, "X: expected one column or more; got none"),
    "GAN": (("a",), ValueError, "input_shape: expected the sizes of one sample, whole numbers; got 'a'"),
    "Captioner": (((28,), data.Vocabulary(["a", "<end>"], "<unknown>")), ValueError, "input_shape: expected .rows, col"),
    "RNTN": ((data.Vocabulary(["a"], "<unknown>"), ["1"]), ValueError, "classes: expected two or more; got 1"),
}


@pytest.mark.parametrize("name", WRONG_BUILDS)
def test_a_network_that_cannot_be_built_does_not_take_the_place_of_one(name):
    make, full, (method, *_) = ANSWERS[name]
    arguments, kind, message = WRONG_BUILDS[name]
    model = make()
    before, state = getattr(model, method)(full[:2]), dict(model.__dict__)
    with pytest.raises(kind, match=message):
        model.build(*arguments)
    assert model.__dict__.keys() == state.keys() and all(model.__dict__[k] is v for k, v in state.items())
    after = getattr(model, method)(full[:2])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    if name != "DBN":  # without a stack that shape would do
        fresh = type(model)(**model.get_params())
        with pytest.raises(kind, match=message):
            fresh.build(*arguments)
        assert fresh.__dict__.keys() == type(model)(**model.get_params()).__dict__.keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP((3,)).build((2, 3), 2), lambda: SoftmaxRegression().build((2, 3), 2), lambda: Perceptron().build((2, 3), 2),
        lambda: DBN((3,)).build((2, 3), 2), lambda: ClassificationRBM(3).build((2, 3), 2),
        lambda: DBN((3,)).pretrain(np.zeros((4, 2, 3)), epochs=1).build((2, 3), 2),
        lambda: MLPRegressor((3,)).build((2, 3), 2), lambda: MLPRegressor((3,)).build(6, 2),
    ],
)  # fmt: skip
def test_a_network_of_rows_that_is_built_for_images_takes_images(make, tmp_path):
    model, images = make(), np.random.default_rng(0).random((5, 2, 3))
    answers = model.predict(images)
    assert np.array_equal(answers, model.predict(images.reshape(5, 6)))
    assert model.input_shape_ == (6,)
    model.save(tmp_path / "m")
    assert np.array_equal(type(model).load(tmp_path / "m").predict(images), answers)


@pytest.mark.parametrize(
    ("classes", "kind", "message"),
    [
        ([1.5, 2.5], TypeError, "classes: expected integer or string labels; got float64"),
        ([np.nan, 1], TypeError, "classes: expected integer or string labels; got float64"),
        (["a", 1], TypeError, "classes: expected integer or string labels; got some of both"),
        ("ab", TypeError, "classes: expected a number of classes, or labels; got str"),
        (None, TypeError, "classes: expected a number of classes, or labels; got NoneType"),
        (2.5, TypeError, "classes: expected a number of classes, or labels; got float"),
        (True, TypeError, "classes: expected a number of classes, or labels; got bool"),
        ([[1, 2]], ValueError, r"classes: expected shape \[1\]"),
        (-1, ValueError, "classes: expected two or more; got 0"),
    ],
)
def test_classes_that_no_labels_could_be_of_are_refused(classes, kind, message):
    with pytest.raises(kind, match=message):
        MLP((3,)).build((4,), classes)


def test_a_forecaster_that_cannot_be_built_stays_what_it_was():
    model = Forecaster(window=8, units=2).fit(WAVE, epochs=1)
    before = model.predict(3)
    with pytest.raises(ValueError, match=r"mean: expected a number or shape \[2\]; got \[3\]"):
        model.build(2, [1, 2, 3])
    np.testing.assert_array_equal(model.predict(3), before)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda **how: CNN(lambda classes: 3).fit(GREY, Y[:8], **how), TypeError, "architecture: .* a Module; got .* a int"),
        (
            lambda **how: CNN(lambda classes: nn.Sequential(nn.Flatten(), nn.Dense(7))).fit(GREY, Y[:8], **how), ValueError,
            r"architecture: expected a network of 2 outputs a sample; got one of \[7\]",
        ),
        (
            lambda **how: CNNRegressor(lambda outputs: nn.Conv2d(outputs, 3)).fit(GREY, X[:8, 0], **how), ValueError,
            r"architecture: expected a network of 1 outputs a sample; got one of \[10, 10, 1\]",
        ),
        (
            lambda **how: DBN((4,)).build((6,), 2).fit(BITS, Y, pretrain=1, warm_start=True, **how), ValueError,
            "pretrain: expected none with warm_start, to go on from the weights of now; got 1",
        ),
        (
            lambda **how: char_lm().fit(TEXT, vocabulary=data.Vocabulary("abc"), warm_start=True, **how), ValueError,
            "vocabulary: expected the one of the network that is trained on; got another",
        ),
        (lambda **how: mlp(optimizer=lambda m: optim.SGD(m), lr=0.1, **how), TypeError, "lr: expected none beside a .*; got 0.1"),
        (lambda **how: mlp(optimizer=lambda m, lr: optim.SGD(m, rate=lr), lr=0.1, **how), TypeError, "keyword argument 'rate'"),
        (lambda **how: DBM((3, 2)).fit(BITS, lr=1e30, **how), FloatingPointError, "DBM: weights became infinite or NaN"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make(epochs=1)


def test_what_goes_together_is_taken():
    small = ConvolutionalRBM(2, 3).fit(GREY, epochs=1, weight_decay=0.5, clip=1e-3).get_weights()["w"]
    assert not np.array_equal(small, ConvolutionalRBM(2, 3).fit(GREY, epochs=1).get_weights()["w"])
    model = char_lm()
    model.fit(TEXT, epochs=1, batch_size=4, window=8, warm_start=True, vocabulary=model.vocabulary_)
    assert DBN((4,)).fit(BITS, Y, pretrain=1, warm_start=True, epochs=1).stack_  # there is nothing to go on from


@pytest.mark.parametrize("make", [
    lambda: Autoencoder((4,), 2), lambda: RBM(4), lambda: DBM((3, 2)), lambda: ConvolutionalRBM(2, 3, image_shape=(3, 4)),
    lambda: PCA(2),
])  # fmt: skip
def test_features_at_once(make):
    x = np.tile(BITS, 2) if isinstance(make(), ConvolutionalRBM) else BITS
    options = {} if isinstance(make(), PCA) else {"epochs": 2, "batch_size": 10}
    np.testing.assert_array_equal(make().fit_transform(x, **options), make().fit(x, **options).transform(x))


def test_a_machine_that_learned_nothing_is_none():
    model = RBM(4)
    with pytest.raises(TypeError, match="lr: expected a number; got str"):
        model.partial_fit(BITS, lr="fast")
    with pytest.raises(RuntimeError, match="RBM: expected a model that was built or fitted"):
        model.transform(BITS)


@pytest.mark.parametrize("last", ["up0.c", "machine1.base", "net.layers.0.w"])
def test_weights_of_a_stack_are_taken_all_or_none(last):
    model = DBN((4, 3)).fit(BITS, Y, pretrain=1, epochs=1)
    before = model.get_weights()
    others = {name: a + 1 for name, a in before.items()}
    for wrong, named in (
        ({name: a for name, a in others.items() if name != last}, last),
        (others | {last: np.zeros(7)}, last),
        (others | {"machine9.w": np.zeros(7)}, "machine9.w"),
    ):
        with pytest.raises(ValueError, match=f"weights.*{named}"):
            model.set_weights(wrong)
        for name, a in model.get_weights().items():
            np.testing.assert_array_equal(a, before[name])
    for name, a in model.set_weights(others).get_weights().items():
        np.testing.assert_array_equal(a, others[name])


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "RNTN"])
def test_nothing_is_learned_from_no_samples(name):
    """And nothing that was learned is lost by it."""
    make, full, (method, *_) = ANSWERS[name]
    model = make()
    before = getattr(model, method)(full[:2])
    for how in {}, {"warm_start": True} if name != "PCA" else {}:
        with pytest.raises(ValueError, match="X: expected one sample or more; got none"):
            model.fit([], [], **how)
        assert np.array_equal(getattr(model, method)(full[:2]), before)


def test_a_series_that_does_not_change_needs_no_penalty():
    assert np.allclose(Forecaster(window=8, units=2, alpha=0).fit(np.full(60, 3.0), epochs=1).predict(2), 3.0)


def test_bytes_as_labels_are_saved(tmp_path):
    model = MLP((4,)).fit(X, np.where(Y, b"yes", b"no"), epochs=1)
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict(X), model.predict(X))


def test_a_stack_whose_training_failed_is_none():
    model = DBN((4,))
    with pytest.raises(ValueError, match="X: expected values from 0 to 1"):
        model.pretrain(BITS * 5)
    assert model.fit(BITS, Y, epochs=1).predict(BITS).shape == (40,)


def test_a_run_goes_on_with_the_same_settings_only(tmp_path):
    path = tmp_path / "run"
    MLP((4,), "relu").fit(X, Y, epochs=1, checkpoint=path)
    for other, name in ((MLP((4,), "tanh"), "act"), (MLP((4,), dropout=0.5), "dropout"), (SoftmaxRegression(), "model")):
        with pytest.raises(ValueError, match=f"{name}: expected .*, as in the checkpoint"):
            other.fit(X, Y, epochs=2, resume=path)
    smooth = dict(epochs=1, smoothing=0.1)
    MLP((4,)).fit(X, Y, checkpoint=path, **smooth)
    with pytest.raises(ValueError, match="loss: expected softmax_cross_entropy, smoothing 0.1"):
        MLP((4,)).fit(X, Y, resume=path, **smooth | {"smoothing": 0.2})
    DBM((3, 2)).fit(BITS, epochs=1, checkpoint=path)
    assert isinstance(load(path), DBM)


def test_bytes_and_floats_up_to_255_are_not_taken_for_each_other(tmp_path):
    images, y = IMAGES, np.arange(8) % 2
    small = CNN(width=2).fit(images, y, epochs=1)
    assert np.allclose(small.predict_proba(images / 255.0), small.predict_proba(images), atol=1e-5)
    small.save(tmp_path / "model")
    for model in (small, load(tmp_path / "model")):
        with pytest.raises(ValueError, match="X: expected uint8, as in training, or values from 0 to 1"):
            model.predict(images.astype(float))
    with pytest.raises(ValueError, match="validation X: expected uint8, as in training"):
        CNN(width=2).fit(images, y, epochs=1, validation=(images.astype(float), y))
    with pytest.raises(ValueError, match="X: expected floats on the scale of training"):
        CNN(width=2).fit(images.astype(float), y, epochs=1).predict(images)
    assert small.fit(images.astype(float), y, epochs=1).predict(images.astype(float)).shape == (8,)
    for first, second, message in (
        (images, images.astype(float), "X: expected uint8, as in training, or values from 0 to 1"),
        (images.astype(float), images, "X: expected floats on the scale of training"),
    ):
        stack = DBN((3, 2), "gaussian").pretrain(first, epochs=1)
        with pytest.raises(ValueError, match=message):
            stack.fit(second, y, epochs=1)  # whose hidden layers begin with weights for others
        assert stack.fit(first, y, epochs=1).pretrain(second, epochs=1).fit(second, y, epochs=1).predict(second).shape == (8,)
    for machine in (RBM(3, "gaussian").fit(images, epochs=1), DBN((3, 2), "gaussian").pretrain(images, epochs=1)):
        machine.save(tmp_path / "model")
        for model in (machine, load(tmp_path / "model")):
            with pytest.raises(ValueError, match="X: expected uint8, as in training, or values from 0 to 1"):
                model.transform(images.astype(float))

"""The sources of the data sets: files, checksums, mirrors, homes and licences.

Nothing heavy is imported here: `dlrun data` lists them at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file's names, unpacked size and SHA-256."""

    name: str
    size: int
    sha256: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set's files and their mirrors.

    A mirror is the address of a folder with the files, each as `name` + `packed`; or, with `archive`, of one tar file
    with all of them. A data set without files is computed. A data set with a `package` ("sklearn/datasets/data") lies
    inside an installed Python package.
    """

    name: str
    about: str
    home: str = ""
    licence: str = ""
    files: tuple[File, ...] = ()
    mirrors: tuple[str, ...] = ()
    packed: str = ".gz"
    archive: bool = False
    download_bytes: int = 0
    package: str = ""
    text: bool = False


def _idx(*checksums: str) -> tuple[File, ...]:
    # the four files of MNIST, which Fashion-MNIST copies in name and size
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return tuple(File(*row) for row in zip(names, sizes, checksums, strict=True))


DIGITS = Source(
    "digits",
    "1,797 handwritten digits of 8×8 pixels, 10 classes",
    home="https://archive.ics.uci.edu/dataset/80 (in scikit-learn)",
    licence="CC BY 4.0",
    files=(File("digits.csv", 264_712, "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"),),
    package="sklearn/datasets/data",
)

DIABETES = Source(
    "diabetes",
    "442 patients, 10 measures each, a regression",
    home="https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html (in scikit-learn)",
    licence="none stated",
    files=(
        File("diabetes_data_raw.csv", 19_596, "86badf50b4f9436ddd1e497dc0ae1b93166f8120221ee7dca4634fe849f3be7c"),
        File("diabetes_target.csv", 11_050, "244713a551f62a291a354212d8a048adec6cb1244b2bc44e66a0698f5006d26d"),
    ),
    package="sklearn/datasets/data",
)

BREAST_CANCER = Source(
    "breast_cancer",
    "569 tumours, 30 measures each, 2 classes",
    home="https://archive.ics.uci.edu/dataset/17 (in scikit-learn)",
    licence="CC BY 4.0",
    files=(File("breast_cancer.csv", 119_913, "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"),),
    package="sklearn/datasets/data",
)

WINE = Source(
    "wine",
    "178 wines, 13 measures each, 3 classes",
    home="https://archive.ics.uci.edu/dataset/109 (in scikit-learn)",
    licence="CC BY 4.0",
    files=(File("wine_data.csv", 11_157, "10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede"),),
    package="sklearn/datasets/data",
)

MNIST = Source(
    "mnist",
    "70,000 handwritten digits of 28×28 pixels, 10 classes",
    home="http://yann.lecun.com/exdb/mnist/",
    licence="none stated; commonly given as CC BY-SA 3.0",
    files=_idx(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    # the home page last: it is often out of reach
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    download_bytes=11_594_722,
)

FASHION_MNIST = Source(
    "fashion_mnist",
    "70,000 pictures of clothing, 28×28 grey pixels, 10 classes",
    home="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    files=_idx(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    download_bytes=30_878_645,
)

CIFAR10 = Source(
    "cifar10",
    "60,000 colour pictures of 32×32 pixels, 10 classes",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated; the home page asks to cite A. Krizhevsky (2009)",
    files=tuple(
        File(f"cifar-10-batches-py/{name}", size, sha256)
        for name, size, sha256 in (
            ("data_batch_1", 31_035_704, "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
            ("data_batch_2", 31_035_320, "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
            ("data_batch_3", 31_035_999, "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
            ("data_batch_4", 31_035_696, "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
            ("data_batch_5", 31_035_623, "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
            ("test_batch", 31_035_526, "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
        )
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    archive=True,
    download_bytes=170_498_071,
)

TINYSHAKESPEARE = Source(
    "tinyshakespeare",
    "plays of Shakespeare, 1,115,394 characters, 65 distinct",
    home="https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
    licence="the text is in the public domain",
    files=(File("input.txt", 1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),),
    mirrors=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",),
    packed="",
    text=True,
    download_bytes=1_115_394,
)

WIKITEXT2 = Source(
    "wikitext2",
    "articles of Wikipedia, 2,551,843 words, 33,278 distinct",
    home="https://huggingface.co/datasets/Salesforce/wikitext",
    licence="CC BY-SA 3.0",
    files=tuple(
        File(f"{part}.txt", size, sha256, aliases=(f"wiki.{part}.tokens", f"wikitext-2/wiki.{part}.tokens"))
        for part, size, sha256 in (
            ("train", 10_797_148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
            ("valid", 1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
            ("test", 1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
        )
    ),
    mirrors=("https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/",),
    packed="",
    text=True,
    download_bytes=13_175_278,
)

SOURCES = {
    source.name: source
    for source in (
        DIGITS,
        DIABETES,
        BREAST_CANCER,
        WINE,
        Source("polynomial", "noisy samples of a smooth function on [0, 1], regression"),
        Source("moons", "two half circles in the plane, 2 classes"),
        Source("spirals", "two spirals in the plane, 2 classes"),
        MNIST,
        FASHION_MNIST,
        CIFAR10,
        TINYSHAKESPEARE,
        WIKITEXT2,
        Source("stdlib", "the source text of the running Python's standard library, about 11 MB", text=True),
    )
}

OFFLINE = tuple(name for name, source in SOURCES.items() if not source.mirrors)
"""The data sets that need no download."""

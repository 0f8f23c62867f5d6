"""Check of each compression of DICOM pixels: a small frame is decoded and compared with its
source."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np

from wavespark.doctor.check import Check
from wavespark.doctor.messages import recognise


@dataclass(frozen=True, slots=True)
class Codec:
    """A transfer syntax and a frame in it."""

    name: str
    syntax: str
    """UID, DICOM PS3.6."""
    frame: str
    """A 32 x 32 frame of `truth`, deflated, base 85; written with GDCM."""
    tolerance: int = 0
    """Grey levels that a lossy decoder may be off."""


CODECS = (
    Codec(
        "RLE",
        "1.2.840.10008.1.2.5",
        "c-o!8p<)40006)zX_6%pi8N`FDWplHEs-pdNTf+5k|olXNR~*GNF<V`3HJy7!CfSTPz;X~#6=~<q&&$;dY1Mgt01Q&@6D^KvUe4AHBBE{8ah7pw0-Fs>KhxF8kw2+@oiyl"
        "<=5KMzdt)02U{n57e`lTw>yrkS|R",
    ),
    Codec(
        "JPEG",
        "1.2.840.10008.1.2.4.50",
        "c-s4a<Ns|2X9h+J!T$pc+#C!F3<`{lf(-wUFvv47FtS3V7@&ZWiJ66!jh%y&iyNq5s{jKNBQrA-3o|P#3ky)T7AViaBFHMFXz0i$9GJ+iR48K9IB_9|veU+cqCpows2C>|"
        "HF0u@iAzXIsj8`KXlj|5nweWzS~<J8y19FJdIg7shJ{B&MkS}Drln_OW)+u|mX%jjRyDV@wzYS3c1@Z*W$Lu)GiJ_Ow0OzVWy@ErT(xQQmaW^i@7THP(BUITj~zd8^3<iv"
        "SFT>We&gn?hmRgVdHU@6i<hrHe)|07>$mSee*XG@i-7~=AA5#>2LBlz&i~Kw^7MZO#s3UnSNvyatN+iiT>nq|e}-%8SJ>l`yu|+_{XfI6qW=sh>i=e;s9gODkKC8$f0F+h"
        "{>|C{N&Y`WR6nx9U$~|IDxlcD7+K-I1-Rw*|G&uq0N_>RFa",
        tolerance=2,
    ),
    Codec(
        "JPEG lossless",
        "1.2.840.10008.1.2.4.70",
        "c-s4a<Nsj>ZVm<o1_ee&L5BZF7{nPEfq(%SurhP}zs0}-6a|Vu|G*&1z>vqlw19#407D1^;|>O{1_pBm#sCJk2Mk&a40jk<9T=n=7*;Sa7Ywx0|2G)`iG?ch",
    ),
    Codec(
        "JPEG-LS",
        "1.2.840.10008.1.2.4.80",
        "c-oE0F%CdL6olco(MVKou(wdsNi>e2R4Nq6hIh2>od69tP%3}+24<4UBp(}(B(Yer#-zd_u`%+6B3c=5#tfHJp(W1Kqj?ymV@5p#3wq*Ml$t4U8$@Y7`+5HMVt)a}GH|v",
    ),
    Codec(
        "JPEG 2000",
        "1.2.840.10008.1.2.4.90",
        "c-s5#|38pHlK})2pcn>F`Hbw0jQ@iectA`B78Vu;#{V%40uBxy9szLlKZQYyfzi1rHL)Z$MIotD!QI8#SKq%NHP0)+)m@=1wWv5VKTp9(&sfjk{{#juu)*O#lP2G9&|qJ8"
        "Nl5>|PbT+UY#bjs*tzZMfgI;o%naf>#bwO(uMhlWcKqDRpqR&V_)NX+GLr<LJc~n(QiJIy`$t!JZrIOVqZvE@|4jf&;5>c",
    ),
)


def truth() -> np.ndarray:
    """The frame that all of them hold: uint8 [32, 32]."""
    rows, columns = np.indices((32, 32))
    return (7 * rows + 20 * (columns // 16)).astype(np.uint8)


def codec_checks() -> list[Check]:
    """A line for each compression."""
    return [_check(codec) for codec in CODECS]


def _check(codec: Codec) -> Check:
    name, remedy = f"DICOM {codec.name}", "pip install 'wavespark[dicom]'"

    def answer(found: str, *, ok: bool = True, warning: bool = False, way_out: str = "") -> Check:
        return Check(
            name=name, expected="decodes", found=found, ok=ok, warning=warning, remedy=way_out, component="data path"
        )

    from pydicom.pixels.decoders.base import get_decoder

    if not get_decoder(codec.syntax).is_available:
        return answer("no decoder: such files are refused, by name", warning=True, way_out=remedy)
    try:
        error = int(np.abs(_decoded(codec).astype(int) - truth()).max())
    except Exception as failure:
        meaning = recognise(str(failure))
        why = meaning.cause if meaning else type(failure).__name__
        return answer(f"fails: {why}", ok=False, way_out=f"pip install --force-reinstall {_packages()}")
    if error > codec.tolerance:
        return answer(f"wrong by {error} grey levels", ok=False, way_out=f"pip install --upgrade {_packages()}")
    return answer("decodes")


def _packages() -> str:
    return "python-gdcm pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls pillow"


def _decoded(codec: Codec) -> np.ndarray:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(codec.syntax)
    dataset.Rows, dataset.Columns = truth().shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = encapsulate([zlib.decompress(base64.b85decode(codec.frame))])
    return np.asarray(dataset.pixel_array)

"""Miniature archives laid out exactly as the owners publish theirs, of few and made-up images.

Each function fills `folder` and returns the path to name with --archives. The pixels follow from
the number of the image, so that tests know them: `picture` draws.
"""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat

ATTRIBUTES = (  # noqa: SIM905 - as they stand in the file
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling "
    "Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
).split()
LANDMARKS = (  # noqa: SIM905
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x "
    "rightmouth_y"
).split()


def picture(number, width, height):
    """uint8 [height, width, 3]: smooth waves, other ones for each number."""
    y, x = np.mgrid[:height, :width] / 40
    random = np.random.default_rng(number)
    waves = [
        np.sin(x * random.uniform(0.5, 2) + y * random.uniform(0.5, 2) + random.uniform(0, 6))
        for _ in range(3)
    ]
    return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_zip(path, files):
    """A .zip of (name, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def write_tar(path, files, mode="w"):
    """A .tar ("w") or .tgz ("w:gz") of (name, bytes), its folders as entries of their own."""
    with tarfile.open(path, mode) as archive:
        folders = set()
        for name, data in files:
            folder = name.rpartition("/")[0]
            if folder and folder not in folders:
                folders.add(folder)
                info = tarfile.TarInfo(folder)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def celeba_labels(number):
    """The 40 published attributes (-1 or 1) and 10 landmarks of an image."""
    random = np.random.default_rng(1000 + number)
    return (2 * random.integers(0, 2, 40) - 1).tolist(), random.integers(30, 150, 10).tolist()


def celeba(folder, count=8, labels=True):
    """img_align_celeba.zip of 178 x 218 JPEGs, and the files of attributes and landmarks."""
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    files = [
        (f"img_align_celeba/{name}", encoded(picture(number, 178, 218), "JPEG", quality=90))
        for number, name in enumerate(names, 1)
    ]
    write_zip(folder / "img_align_celeba.zip", [("img_align_celeba/", b""), *files])
    if labels:
        rows = [celeba_labels(number) for number in range(1, count + 1)]
        for part, (file, titles) in enumerate(
            [("list_attr_celeba.txt", ATTRIBUTES), ("list_landmarks_align_celeba.txt", LANDMARKS)]
        ):
            lines = [str(count), " ".join(titles) + " "]
            lines += [
                f"{name} " + "".join(f"{value:3d} " for value in row[part])
                for name, row in zip(names, rows, strict=True)
            ]
            (folder / file).write_text("\n".join(lines) + "\n")
    return folder


def celeba_hq(folder, count=2, kind="png"):
    """A folder of imgHQ00000.npy (uint8 [1, 3, 1024, 1024]) or .png."""
    for number in range(count):
        pixels = picture(number, 1024, 1024)
        path = folder / f"imgHQ{number:05d}.{kind}"
        if kind == "npy":
            np.save(path, pixels.transpose(2, 0, 1)[None])
        else:
            path.write_bytes(encoded(pixels, compress_level=1))
    return folder


def chairs3d(folder, count=4):
    """rendered_chairs.tar of 600 x 600 PNGs: two chairs, so many images in all."""
    chairs = ["1a6f615e8b1b5ae4dbbc9440457e303e", "b663f1e4df6c51fe19fb4103277a6b93"]
    files = [("rendered_chairs/all_chair_names.mat", b"MATLAB 5.0 MAT-file")]
    for number in range(count):
        chair, view = divmod(number, (count + 1) // 2)
        name = f"image_{view:03d}_p{20 + 10 * (view % 2):03d}_t{view * 360 // 31:03d}_r096.png"
        # In the order of chairs in which no sorting would put them.
        path = f"rendered_chairs/{chairs[1 - chair]}/renders/{name}"
        files.append((path, encoded(picture(number, 600, 600), compress_level=1)))
    return write_tar(folder / "rendered_chairs.tar", files)


def cars(folder, count=3, labels=True):
    """cars_train.tgz, cars_test.tgz, car_devkit.tgz and the labels of the test images."""
    mats = {}
    for part in ("train", "test"):
        files, rows = [], []
        for number in range(1, count + 1):
            width, height = 200 + 10 * number, 150
            pixels = picture(number + (100 if part == "test" else 0), width, height)
            files.append((f"cars_{part}/{number:05d}.jpg", encoded(pixels, "JPEG", quality=90)))
            box = (5 + number, 7, 5 + number + 120, 7 + 80)
            rows.append((*box, number, f"{number:05d}.jpg"))
        write_tar(folder / f"cars_{part}.tgz", files, "w:gz")
        mats[f"cars_{part}_annos"] = rows
    devkit = [
        ("devkit/cars_train_annos.mat", _annotations(mats["cars_train_annos"], True)),
        ("devkit/cars_test_annos.mat", _annotations(mats["cars_test_annos"], False)),
        ("devkit/README.txt", b"This is the devkit"),
    ]
    write_tar(folder / "car_devkit.tgz", devkit, "w:gz")
    if labels:
        path = folder / "cars_test_annos_withlabels.mat"
        path.write_bytes(_annotations(mats["cars_test_annos"], True))
    return folder


def _annotations(rows, with_class):
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *["class"] * with_class, "fname"]
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for column, (*box, label, name) in enumerate(rows):
        numbers = [np.uint16(value) for value in box] + [np.uint8(label)] * with_class
        table[0, column] = (*numbers, name)
    file = io.BytesIO()
    savemat(file, {"annotations": table})
    return file.getvalue()


def folder(path, count=6):
    """A folder of images of several kinds and sizes, in two subfolders."""
    kinds = [("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.webp", "WEBP"), ("d.bmp", "BMP")]
    for number in range(count):
        name, kind = kinds[number % 4]
        place = path / f"part{number % 2}" / f"{number}{name}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(encoded(picture(number, 90 + number, 80), kind))
    return path

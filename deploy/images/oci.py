#!/usr/bin/env python3
"""Write container images without a container engine, so that the same files always make the same bytes.

    oci.py layer FOLDER LAYER.tar [--own PATH=UID:GID…]
    oci.py image IMAGE.tar --name NAME --layer LAYER.tar… [--entrypoint PROGRAM] [--user UID:GID] [--env K=V…] [--workdir DIR]

`layer` turns a folder into a layer: entries sorted, times zero, everything owned by root except what --own names, so
that it does not matter who builds. `image` puts layers and a configuration
into an OCI image layout, prints the image's digest, and names it so that `ctr images import` knows it. Layers are not
compressed: they never cross a network, and unpacking is what a start waits for.

Only the standard library is used.
"""

import argparse
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

# https://reproducible-builds.org/specs/source-date-epoch/
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
CREATED = "1970-01-01T00:00:00Z"


def paths_below(root: Path) -> list[str]:
    """All paths below root, relative and sorted by byte value, parents before children."""
    found = []
    for folder, folders, files in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
    return sorted(found, key=os.fsencode)


def write_layer(root: Path, output: Path, owners: dict[str, tuple[int, int]]) -> None:
    """Write the folder as a layer, and refuse what a job's image must never hold."""
    hard_links: dict[tuple[int, int], str] = {}
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths_below(root):
            source = root / path
            status = source.lstat()
            entry = archive.gettarinfo(source, arcname=path)
            if entry is None or not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                raise SystemExit(f"oci.py: {source} is a device, socket or pipe, which an image cannot hold")
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                raise SystemExit(f"oci.py: {source} is setuid or setgid, which would lend root's rights to a job")
            entry.mtime = EPOCH
            entry.uid, entry.gid = owners.get(path, (0, 0))
            entry.uname = entry.gname = ""
            # tarfile's own memory of hard links depends on what it met before; ours depends on the sorted paths only.
            first = hard_links.setdefault((status.st_dev, status.st_ino), path) if stat.S_ISREG(status.st_mode) else path
            if first != path:
                entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, first, 0
            elif stat.S_ISREG(status.st_mode):
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", status.st_size
            if entry.isreg():
                with source.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def digest_of_file(path: Path) -> str:
    with path.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def describe(media_type: str, digest: str, size: int) -> dict:
    return {"mediaType": media_type, "digest": digest, "size": size}


def configuration(arguments: argparse.Namespace, layer_digests: list[str]) -> bytes:
    process = {"Env": arguments.env}
    if arguments.entrypoint:
        process["Entrypoint"] = [arguments.entrypoint]
    if arguments.user:
        process["User"] = arguments.user
    if arguments.workdir:
        process["WorkingDir"] = arguments.workdir
    return canonical(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": layer_digests},
            "history": [{"created": CREATED} for _ in layer_digests],
        }
    )


def write_image(arguments: argparse.Namespace) -> str:
    """Write the image layout and return the digest of its manifest."""
    layers = {digest_of_file(path): path for path in arguments.layer}
    config = configuration(arguments, list(layers))
    config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", config_digest, len(config)),
            "layers": [
                describe("application/vnd.oci.image.layer.v1.tar", digest, path.stat().st_size)
                for digest, path in layers.items()
            ],
        }
    )
    manifest_digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    reference = describe("application/vnd.oci.image.manifest.v1+json", manifest_digest, len(manifest))
    reference["platform"] = {"architecture": "amd64", "os": "linux"}
    reference["annotations"] = {
        "io.containerd.image.name": arguments.name,
        "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[1],
    }
    index = canonical(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [reference]}
    )
    blobs = {config_digest: config, manifest_digest: manifest} | layers
    unfinished = arguments.output.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        # The index comes first, so that a reader who only wants the digest need not pass over the layers.
        add_bytes(archive, "index.json", index)
        add_bytes(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for digest, blob in sorted(blobs.items()):
            name = "blobs/" + digest.replace(":", "/")
            if isinstance(blob, bytes):
                add_bytes(archive, name, blob)
            else:
                add_file(archive, name, blob)
    os.replace(unfinished, arguments.output)
    return manifest_digest


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(plain_entry(name, len(content)), io.BytesIO(content))


def add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as content:
        archive.addfile(plain_entry(name, path.stat().st_size), content)


def plain_entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, EPOCH
    return entry


def parse_owners(values: list[str]) -> dict[str, tuple[int, int]]:
    owners = {}
    for value in values:
        path, _, owner = value.partition("=")
        user, _, group = owner.partition(":")
        owners[path] = (int(user), int(group))
    return owners


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    layer = verbs.add_parser("layer")
    layer.add_argument("folder", type=Path)
    layer.add_argument("output", type=Path)
    layer.add_argument("--own", action="append", default=[], metavar="PATH=UID:GID")
    image = verbs.add_parser("image")
    image.add_argument("output", type=Path)
    image.add_argument("--name", required=True)
    image.add_argument("--layer", type=Path, action="append", required=True)
    image.add_argument("--entrypoint")
    image.add_argument("--user")
    image.add_argument("--workdir")
    image.add_argument("--env", action="append", default=["PATH=/usr/local/bin:/usr/bin:/bin"])
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.verb == "layer":
        write_layer(arguments.folder, arguments.output, parse_owners(arguments.own))
    else:
        print(write_image(arguments))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""A small virtual machine with NVMe disks: Debian's or Ubuntu's own kernel, emulated without KVM, the host's files read-only."""

import ctypes
import lzma
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STILL_STEPS = 5
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "vm"
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "crc32_generic", "crc32c_generic", "crc32c_intel", "ext4", "virtio_blk", "nvme"]
PROGRAMS = ["qemu-system-x86_64", "busybox", "cpio", "depmod", "modprobe", "mkfs.ext4", "apt-get", "dpkg"]


class Unavailable(Exception):
    """The machine cannot be had here; the text says why."""


def missing_programs():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def run(command, **options):
    environment = dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return subprocess.run(command, check=True, text=True, env=environment, **options)


def kernel_packages():
    """The packages of the distribution's present kernel: the image, and its modules where they stand alone."""
    for meta in ("linux-image-amd64", "linux-image-generic"):
        text = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False).stdout
        found = re.findall(r"Depends: (linux-(?:image|modules)-\S+)", text)
        images = [name for name in found if name.startswith("linux-image-") and re.search(r"\d", name)]
        if images:
            image = images[0]
            return [image] if meta.endswith("amd64") else [image, image.replace("linux-image-", "linux-modules-")]
    raise Unavailable("apt knows no kernel image (apt-get update?)")


def unpack_kernel():
    """Downloads the kernel once; returns its folder."""
    folder = CACHE / "kernel"
    if (folder / "done").exists():
        return folder
    if platform.machine() != "x86_64":
        raise Unavailable("the test machine is x86-64")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as downloads:
        try:
            run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *kernel_packages()], cwd=downloads, stdout=subprocess.DEVNULL)
        except subprocess.CalledProcessError as error:
            raise Unavailable("apt-get cannot download the kernel image") from error
        for package in pathlib.Path(downloads).glob("*.deb"):
            run(["dpkg", "-x", str(package), str(folder)])
    (version,) = [path.name for path in modules_folder(folder).iterdir()]
    run(["depmod", "-b", str(folder if not (folder / "usr/lib/modules").exists() else folder / "usr"), version])
    (folder / "version").write_text(version)
    (folder / "done").touch()
    return folder


def modules_folder(folder):
    plain = folder / "lib" / "modules"
    return plain if plain.exists() else folder / "usr" / "lib" / "modules"


def module_files(folder, version):
    """Paths of the modules in the order of loading."""
    base = folder if (folder / "lib" / "modules").exists() else folder / "usr"
    files = []
    for name in MODULES:
        shown = subprocess.run(["modprobe", "-d", str(base), "-S", version, "--show-depends", name], capture_output=True, text=True,
                               check=False, env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"))
        for line in shown.stdout.splitlines():
            parts = line.split()
            if parts and parts[0] == "insmod" and parts[1] not in files:
                files.append(parts[1])
    return files


def plain_module(path):
    """The module's bytes; distributions compress them differently."""
    if path.endswith(".xz"):
        return lzma.open(path).read()
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    return pathlib.Path(path).read_bytes()


def archive(folder, target):
    """Packs a folder as an initramfs."""
    names = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))) + "\n"
    with open(target, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=out, check=True, cwd=folder)


def base_initramfs(folder, version):
    target = CACHE / "initramfs"
    if target.exists() and target.stat().st_mtime > max((HERE / "init").stat().st_mtime, (HERE / "machine.py").stat().st_mtime):
        return target
    with tempfile.TemporaryDirectory() as temporary:
        tree = pathlib.Path(temporary)
        (tree / "bin").mkdir()
        (tree / "modules").mkdir()
        shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
        shutil.copy(HERE / "init", tree / "init")
        (tree / "init").chmod(0o755)
        lines = []
        for path in module_files(folder, version):
            name = pathlib.Path(path).name.split(".")[0] + ".ko"
            (tree / "modules" / name).write_bytes(plain_module(path))
            lines.append(name + (" poll_queues=1" if name == "nvme.ko" else ""))
        (tree / "modules.list").write_text("\n".join(lines) + "\n")
        archive(tree, target)
    return target


def end_with_parent():
    """In a child: it is killed when this process ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """One boot. `disks` are (image, block size, bus, volatile): a volatile one loses its cache when the machine is killed."""

    def __init__(self, job, disks, log, memory="1500M", seed=1, writes=1):
        self.folder = tempfile.TemporaryDirectory(prefix="pegaflow-vm.")
        self.log_path = pathlib.Path(log)
        self.servers = []
        self.writes = writes
        folder = pathlib.Path(self.folder.name)
        kernel = unpack_kernel()
        version = (kernel / "version").read_text()
        tree = folder / "tree"
        tree.mkdir()
        (tree / "job").write_text(job)
        (tree / "tests-folder").write_text(str(ROOT))
        archive(tree, folder / "job.cpio")
        with open(folder / "initramfs", "wb") as out:
            for part in (base_initramfs(kernel, version), folder / "job.cpio"):
                out.write(part.read_bytes())
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", memory, "-smp", "2",
                   "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel / "boot" / f"vmlinuz-{version}"), "-initrd",
                   str(folder / "initramfs"), "-append", "console=ttyS0 quiet panic=-1 loglevel=3", "-virtfs",
                   "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]
        for number, (image, block, bus, volatile) in enumerate(disks):
            command += self.disk(folder, number, image, block, bus, volatile, seed)
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)

    def disk(self, folder, number, image, block, bus, volatile, seed):
        source = f"driver=raw,node-name=d{number},file.driver=file,file.filename={image},file.aio=threads"
        if volatile:
            socket = folder / f"disk{number}"
            server = subprocess.Popen([str(HERE / "power_disk.py"), str(image), str(socket), "--seed", str(seed), "--writes", str(self.writes)],
                                      stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
            self.servers.append(server)
            if server.stdout.readline().strip() != "ready":
                raise RuntimeError("the disk does not start")
            source = f"driver=raw,node-name=d{number},file.driver=nbd,file.server.type=unix,file.server.path={socket}"
        if bus == "virtio":
            return ["-blockdev", source, "-device",
                    f"virtio-blk-pci,drive=d{number},logical_block_size={block},physical_block_size={block},write-cache=on"]
        return ["-blockdev", source, "-device", f"nvme,serial=pega{number},id=n{number}", "-device",
                f"nvme-ns,drive=d{number},bus=n{number},logical_block_size={block},physical_block_size={block}"]

    def text(self):
        return self.log_path.read_text(errors="replace").replace("\r", "")

    def wait_for(self, pattern, seconds):
        """Waits until the console shows the pattern. False when it ends or the time passes first."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if re.search(pattern, self.text(), re.MULTILINE):
                return True
            if self.process.poll() is not None:
                return re.search(pattern, self.text(), re.MULTILINE) is not None
            time.sleep(0.05)
        return False

    def finish(self, seconds):
        """Waits for the job's end; returns its exit code, or None when it did not end in time or the machine died."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self.close()
        found = re.search(r"^vm: exit (\d+)$", self.text(), re.MULTILINE)
        return int(found.group(1)) if found else None

    def still(self, seconds):
        """Waits for a moment at which the volatile disk has many writes in its cache; every so many seconds it may be fewer."""
        (server,) = self.servers
        for _ in range(STILL_STEPS):
            server.send_signal(signal.SIGUSR1)
            if select.select([server.stdout], [], [], seconds)[0]:
                return server.stdout.readline().strip() == "still"
        return False

    def kill(self):
        """Power off, now. Returns what the disks say about it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.close()

    def close(self):
        told = [server.communicate(timeout=60)[0].strip() for server in self.servers]
        self.servers = []
        self.log.close()
        self.folder.cleanup()
        return "; ".join(line for line in told if line)

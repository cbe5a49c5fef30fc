# SPDX-License-Identifier: Apache-2.0
"""The package itself: stubs that agree with the module, libraries that came along, examples that run."""

import ast
import pathlib
import re
import subprocess
import sys

import pegaflow
import pytest
from pegaflow import _core

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = pathlib.Path(pegaflow.__file__).parent


def stub_functions():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef) and not cls.name.startswith("_"):
            for item in cls.body:
                if isinstance(item, ast.FunctionDef) and not any(
                    isinstance(d, ast.Name) and d.id == "property" for d in item.decorator_list
                ):
                    yield cls.name, item


def parameters_of_stub(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    names = [a.arg for a in arguments.args if a.arg != "self"]
    return names + (["*"] if arguments.kwonlyargs else []) + [a.arg for a in arguments.kwonlyargs]


def parameters_of_module(text: str) -> list[str]:
    """From the signature that pybind11 writes in the first line of a docstring: name(self: T, a: U, *, b: V = 1) -> W"""
    inside = text.split("(", 1)[1].rsplit(") ->", 1)[0]
    depth, parts, current = 0, [], ""
    for c in re.sub(r"'[^']*'", "''", inside) + ",":
        depth += c in "[({"
        depth -= c in "])}"
        if c == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += c
    names = [re.split(r"[:=]", part)[0].strip() for part in parts if part]
    return [name for name in names if name != "self"]


@pytest.mark.parametrize(("cls", "function"), list(stub_functions()), ids=lambda x: getattr(x, "name", x))
def test_stubs_name_the_arguments_of_the_module(cls, function):
    if function.name in ("__exit__", "__enter__", "__len__", "__buffer__", "__release_buffer__"):
        return
    method = getattr(getattr(_core, cls), function.name)
    signature = method.__doc__.splitlines()[0]
    assert "std::" not in signature, "an argument that Python cannot give"
    found = [name for name in parameters_of_module(signature) if not re.fullmatch(r"arg\d+", name)]
    assert found == parameters_of_stub(function), signature


def test_stubtest():
    command = [sys.executable, "-m", "mypy.stubtest", "pegaflow", "--allowlist", pathlib.Path(__file__).parent / "stubtest_allowlist.txt"]
    checked = subprocess.run([*command, "--ignore-unused-allowlist"], capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_libraries_came_along():
    files = {path.name for path in (PACKAGE / "lib").iterdir()}
    assert {"libpegaflow.so.0", "libpegaflow_client.so.0"} <= files
    assert (PACKAGE / "lib/pegaflow/pegaflow-backend-host.so").exists()
    assert (PACKAGE / "py.typed").exists()
    maps = pathlib.Path("/proc/self/maps").read_text()
    mapped = {line.split()[-1] for line in maps.splitlines() if re.search(r"grpc|protobuf|absl|pegaflow", line)}
    strangers = {path for path in mapped if ".so" in path and not path.startswith(str(PACKAGE))}
    assert strangers == set(), "what is loaded is what came with the package"


def test_the_modules_are_found_beside_the_library():
    fabric = pegaflow.Fabric()
    assert {"host", "cuda", "fault", "trace"} <= {module.name for module in fabric.modules}
    (cuda,) = [module for module in fabric.modules if module.name == "cuda"]
    assert pathlib.Path(cuda.path).parent == (PACKAGE / "lib/pegaflow").resolve()
    if not cuda.devices:
        assert cuda.problem, "why a back end does not work is said in words"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def test_the_readme_example_runs():
    (code,) = python_blocks("README.md")
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("import")]) <= 6
    subprocess.run([sys.executable, "-c", code + "\nassert (kv[5] == kv[0]).all()"], check=True, timeout=60)


def test_the_guide_runs(server):
    blocks = python_blocks("docs/python.md")
    assert len(blocks) >= 4
    code = "\n".join(blocks).replace("http://127.0.0.1:50055", server.endpoint)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_example_runs(server):
    command = [sys.executable, ROOT / "examples/python/two_processes.py", "--endpoint", server.endpoint]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "every byte is right" in ran.stdout

"""Other servers of the same SavedModel, each in a virtual environment of its own that sees TensorFlow from ours.

Every peer answers ``{"instances": [...]}`` with ``{"predictions": [...]}``, by the call that its users would write, and
without a log line for each request, as our server does by default.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving_load import free_port

LOAD = """
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
loaded = tf.saved_model.load(VERSION)
signature = loaded.signatures["serving_default"]

def answer(instances):
    outputs = signature(x=tf.constant(np.asarray(instances, dtype=np.float32)))
    return outputs["probabilities"].numpy().tolist()
"""

FASTAPI = """
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

class Body(BaseModel):
    instances: list

app = FastAPI()

@app.get("/ready")
def ready():
    return True

@app.post("/predict")
async def predict(body: Body):
    return {"predictions": answer(body.instances)}

uvicorn.run(app, port=PORT, log_level="error")
"""

MLFLOW = """
import os
import mlflow.pyfunc
import uvicorn
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server import init
from mlflow.types import Schema, TensorSpec

folder = FOLDER + "/mlflow-" + os.path.basename(os.path.dirname(VERSION))
if not os.path.exists(folder):
    shape = tuple(-1 if size is None else size for size in signature.structured_input_signature[1]["x"].shape)
    inputs = Schema([TensorSpec(np.dtype("float32"), shape)])
    told = ModelSignature(inputs, Schema([TensorSpec(np.dtype("float64"), (-1, -1))]))
    code = FOLDER + "/mlflow_model.py"
    with open(code, "w") as file:
        file.write(LOAD_TEXT + MODEL_TEXT)
    mlflow.pyfunc.save_model(folder, python_model=code, signature=told, pip_requirements=[])
uvicorn.run(init(mlflow.pyfunc.load_model(folder)), port=PORT, log_level="error")
"""

MLFLOW_MODEL = """
import mlflow.pyfunc

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return np.array(answer(model_input))

mlflow.models.set_model(Model())
"""

BENTOML = """
import bentoml

@bentoml.service(workers=1)
class Service:
    @bentoml.api
    def predict(self, instances: list) -> dict:
        return {"predictions": answer(instances)}

if __name__ == "__main__":
    import os, sys
    command = [sys.executable, "-m", "bentoml", "serve", "peer_bentoml:Service"]
    os.execv(sys.executable, [*command, "--quiet", "--port", str(PORT), "--working-dir", FOLDER])
"""

RAY = """
import time
import ray
from ray import serve
from starlette.requests import Request

@serve.deployment(ray_actor_options={"num_cpus": 0.5}, logging_config={"enable_access_log": False})
class Service:
    def __init__(self):
        scope = {}
        exec(LOAD_TEXT, scope)
        self.answer = scope["answer"]

    async def __call__(self, request: Request):
        if request.method == "GET":
            return True
        return {"predictions": self.answer((await request.json())["instances"])}

for remaining in (2, 1, 0):
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        break
    except Exception:  # it gives itself 30 seconds, which a busy machine may not
        ray.shutdown()
        if not remaining:
            raise
serve.start(http_options={"port": PORT}, logging_config={"enable_access_log": False})
serve.run(Service.bind())
while True:
    time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """How a peer is installed and asked.

    Attributes:
        packages: For pip.
        program: Behind the lines that load the model.
        path: Of predictions.
        ready: A page that answers when it is up.
    """

    packages: tuple[str, ...]
    program: str
    path: str
    ready: str


PEERS = {
    "fastapi": Peer(("fastapi", "uvicorn[standard]"), FASTAPI, "/predict", "/ready"),
    "mlflow": Peer(("mlflow", "fastapi", "uvicorn[standard]"), MLFLOW, "/invocations", "/ping"),
    "bentoml": Peer(("bentoml",), BENTOML, "/predict", "/readyz"),
    "ray": Peer(("ray[serve]",), RAY, "/", "/"),
}


def peer_command(name: str, *, folder: Path, environments: Path, version: Path) -> tuple[int, list[str]]:
    """Install a peer where it is not yet, write its program; return a free port and the command that listens on it.

    Args:
        name: Of the peer.
        folder: For programs.
        environments: For virtual environments.
        version: Directory of the SavedModel.
    """
    python = environments / f"venv-{name}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[name].packages], check=True)
        # TensorFlow is the same for all; what the peer brings itself comes first.
        site = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        Path(site, "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    port = free_port()
    constants = f"VERSION = {str(version)!r}\nPORT = {port}\nFOLDER = {str(folder)!r}\n"
    load = f"VERSION = {str(version)!r}\n{LOAD}"
    program = folder / f"peer_{name}.py"
    constants += f"LOAD_TEXT = {load!r}\nMODEL_TEXT = {MLFLOW_MODEL!r}\n"
    program.write_text(constants + ("" if name == "ray" else LOAD) + PEERS[name].program)
    return port, [str(python), str(program)]

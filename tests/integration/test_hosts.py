"""Django and Flask projects as the documentation of Celery has them, with ``install`` added.

A view emits; a worker of the project delivers.
"""

import json
from pathlib import Path

import pytest

DJANGO = {
    "proj/__init__.py": """
from .celery import app as celery_app
""",
    "proj/settings.py": """
import os

SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "proj.urls"
INSTALLED_APPS = ["people"]
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["QUEUE"] + ".host"
CELERY_WEBHOOKS_CONFIG = os.environ["FILE"]
CELERY_WEBHOOKS_QUEUE = os.environ["QUEUE"]
""",
    "proj/celery.py": """
import os

import webhooks_celery
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
webhooks_celery.install(app)
""",
    "proj/urls.py": """
from django.http import JsonResponse
from django.urls import path
from django.utils.translation import gettext_lazy
from people.tasks import greet
from webhooks_celery import emit

def create(request):
    ids = emit("PersonCreate", {"name": "Zoë", "kind": gettext_lazy("friend")})
    greet.delay("Zoë")
    return JsonResponse({"ids": ids})

urlpatterns = [path("create", create)]
""",
    "people/__init__.py": "",
    "people/tasks.py": """
from celery import shared_task

@shared_task
def greet(name):
    return f"Hello {name}!"
""",
    "client.py": """
import django, proj
django.setup()
from django.test import Client
print(Client().post("/create").content.decode())
""",
}

FLASK = {
    "proj.py": """
import os

import webhooks_celery
from celery import Celery, Task, shared_task
from flask import Flask, current_app

def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    webhooks_celery.install(celery_app)
    app.extensions["celery"] = celery_app
    return celery_app

app = Flask("proj")
app.config["GREETING"] = "Hello"
app.config["CELERY"] = {
    "broker_url": os.environ["BROKER"],
    "task_default_queue": os.environ["QUEUE"] + ".host",
    "webhooks_config": os.environ["FILE"],
    "webhooks_queue": os.environ["QUEUE"],
}
celery_app = celery_init_app(app)

@shared_task
def greet(name):
    return f"{current_app.config['GREETING']} {name}!"

@app.post("/create")
def create():
    ids = webhooks_celery.emit("PersonCreate", {"name": "Zoë", "kind": "friend"})
    greet.delay("Zoë")
    return {"ids": ids}
""",
    "client.py": """
from proj import app
print(app.test_client().post("/create").text.strip())
""",
}


@pytest.mark.parametrize(
    ("project", "app"),
    [pytest.param(DJANGO, "proj", id="django"), pytest.param(FLASK, "proj.celery_app", id="flask")],
)
def test_a_view_emits_and_a_worker_of_the_project_delivers(
    project, app, broker_url, new_queue, receiver, webhooks_file, start, tmp_path
):
    for name, text in project.items():
        path: Path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    hook = {"events": ["Person*"], "url": receiver.answer("/in", 500, 200), "backoffMs": 1}
    env = {"BROKER": broker_url, "QUEUE": new_queue(), "FILE": webhooks_file(hook)}
    worker = start("-m", "celery", "-A", app, "worker", "-l", "INFO", "-c", "1", **env)

    client = start("client.py", **env)

    assert client.wait() == 0, client.output
    [delivery] = json.loads(client.lines[-1])["ids"]
    worker.wait_for_line("'Hello Zoë!'")
    failed, delivered = receiver.wait_for(2)
    assert (failed.head, failed.body) == (delivered.head, delivered.body)
    assert delivered.headers["X-Immich-Delivery-Id"] == delivery
    assert json.loads(delivered.body)["payload"] == {"name": "Zoë", "kind": "friend"}
    worker.wait_for_line("'attempt': 2")
    assert worker.stop() == 0

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from celery import Celery

from webhooks_celery.config import ENVIRONMENT_VARIABLE, config_of, configured_path, read
from webhooks_celery.errors import ConfigError

GOOD = json.dumps({"webhooks": [{"events": ["*"], "url": "http://h/${TOKEN}"}]})


@pytest.fixture
def app() -> Celery:
    return Celery("test", set_as_current=False)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A good webhooks file that the environment names."""
    path = tmp_path / "webhooks.json"
    path.write_text(GOOD)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    monkeypatch.setenv("TOKEN", "t0ken")
    return path


class TestRead:
    @pytest.mark.parametrize("path", [None, ""])
    def test_no_path_means_off(self, path):
        config = read(path)
        assert (config.path, config.off) == (None, "IMMICH_WEBHOOKS_CONFIG is not set")
        assert not config.hooks

    @pytest.mark.parametrize("missing", ["webhooks.json", "no/such/folder/webhooks.json"])
    def test_no_file_means_off(self, tmp_path, missing):
        path = str(tmp_path / missing)
        config = read(path)
        assert (config.path, config.off) == (path, f"{path} does not exist")
        assert not config.hooks

    @pytest.mark.parametrize("path", ["webhooks.json", "./w.json", "../w.json", "~/w.json", " /w"])
    def test_a_relative_path_is_an_error(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "webhooks.json").write_text(GOOD)
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert caught.value.args == (path, (("", "The path must be absolute: begin it with /."),))

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("{folder}", "Is a directory; name the file in it."),
            ("{folder}/file/webhooks.json", "Cannot be read: Not a directory."),
            ("{folder}/" + "x" * 5_000, "Cannot be read: File name too long."),
            ("{folder}/a\0b", "Cannot be read: embedded null byte."),
        ],
        ids=["directory", "file as a directory", "name too long", "NUL"],
    )
    def test_a_file_that_cannot_be_read_is_an_error(self, tmp_path, path, problem):
        (tmp_path / "file").touch()
        path = path.format(folder=tmp_path)
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert caught.value.args == (path, (("", problem),))

    def test_a_faulty_file_is_an_error_that_names_it(self, file):
        file.write_text("{}")
        with pytest.raises(ConfigError) as caught:
            read(str(file))
        faults = (("webhooks", "Missing data for required field."),)
        assert caught.value.args == (str(file), faults)

    def test_a_good_file(self, file):
        config = read(str(file), {"TOKEN": "other"})
        assert (config.path, config.off) == (str(file), "")
        assert [hook.url for hook in config.hooks] == ["http://h/other"]

    def test_variables_come_from_the_process_environment(self, file):
        assert [hook.url for hook in read(str(file)).hooks] == ["http://h/t0ken"]


class TestConfiguredPath:
    @pytest.mark.parametrize(
        ("setting", "variable", "path"),
        [
            (None, None, None),
            (None, "/variable", "/variable"),
            ("/setting", None, "/setting"),
            ("/setting", "/variable", "/setting"),
            ("", "/variable", "/variable"),
        ],
    )
    def test_the_setting_goes_before_the_environment(
        self, app, monkeypatch, setting, variable, path
    ):
        app.conf.webhooks_config = setting
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        if variable is not None:
            monkeypatch.setenv(ENVIRONMENT_VARIABLE, variable)
        assert configured_path(app) == path

    def test_the_setting_may_be_a_path(self, app, tmp_path):
        app.conf.webhooks_config = tmp_path
        assert configured_path(app) == str(tmp_path)


class TestConfigOf:
    def test_the_file_is_read_once_per_app(self, app, file):
        first = config_of(app)
        file.write_text('{"webhooks": []}')
        assert config_of(app) is first
        assert len(first.hooks) == 1
        assert len(config_of(Celery("another", set_as_current=False)).hooks) == 0

    def test_the_setting_is_the_file_that_is_read(self, app, file, tmp_path):
        empty = tmp_path / "empty.json"
        empty.write_text('{"webhooks": []}')
        app.conf.webhooks_config = str(empty)
        assert config_of(app).path == str(empty)

    def test_an_error_is_raised_each_time_and_anew(self, app, file):
        file.write_text("{}")
        with pytest.raises(ConfigError) as first:
            config_of(app)
        file.write_text(GOOD)  # a restart is needed
        with pytest.raises(ConfigError) as second:
            config_of(app)
        assert second.value is not first.value  # it would collect tracebacks
        assert second.value.args == first.value.args

    def test_off_is_said_once(self, app, monkeypatch, caplog):
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        with caplog.at_level(logging.WARNING, "webhooks_celery"):  # Celery's workers have no less
            assert config_of(app) is config_of(app)
        assert caplog.messages == ["webhooks are off: IMMICH_WEBHOOKS_CONFIG is not set"]

    def test_on_is_not_worth_a_line(self, app, file, caplog):
        with caplog.at_level(logging.INFO, "webhooks_celery"):
            config_of(app)
        assert not caplog.messages

    def test_threads_that_come_at_once_get_the_same(self, app, file):
        together = Barrier(8)

        def ask(_):
            together.wait()
            return config_of(app)

        with ThreadPoolExecutor(8) as threads:
            configs = list(threads.map(ask, range(8)))
        assert all(config is configs[0] for config in configs)

"""What `fetch` is told in local mode about data in S3 services: where credentials are, never what they are."""

from __future__ import annotations

from controller.local.up import data_settings, store_settings


def test_files_profiles_and_hosts_are_named_and_no_credential_is(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[default]\n")
    given = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "secret",
        "AWS_PROFILE": "team",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "MAINSPRING_ALLOWED_HOSTS": "minio.example.com",
        "PATH": "/bin",
    }
    assert data_settings(given, tmp_path) == {
        "AWS_PROFILE": "team",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws/credentials"),
        "MAINSPRING_ALLOWED_HOSTS": "minio.example.com",
    }
    assert data_settings({}, tmp_path / "nowhere") == {}


def test_a_server_is_told_where_the_stores_of_its_log_are_and_no_credential(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[default]\n")
    given = {
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AZURE_STORAGE_KEY": "secret",
        "AWS_ENDPOINT_URL": "https://minio.example.com",
        "GOOGLE_APPLICATION_CREDENTIALS": "key.json",
        "MAINSPRING_ALLOWED_HOSTS": "minio.example.com",
    }
    assert store_settings(given, tmp_path) == {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws/credentials"),
        "AWS_ENDPOINT_URL": "https://minio.example.com",
        "GOOGLE_APPLICATION_CREDENTIALS": "key.json",
    }

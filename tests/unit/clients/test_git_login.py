"""What a person reads when ssh does not let git in: the words of ssh, and not that git could not read."""

from __future__ import annotations

import pytest

from controller.clients.git_errors import failure
from controller.clients.git_process import Completed

GIT = (
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n"
)


@pytest.mark.parametrize(
    ("ssh", "reason", "words"),
    [
        pytest.param(
            "git@git.example.com: Permission denied (publickey).\r\n",
            "AuthenticationFailed",
            "failed: git@git.example.com: Permission denied (publickey).; check the Secret",
            id="a key that the server does not know",
        ),
        pytest.param(
            "No ED25519 host key is known for git.example.com and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            "HostKeyMismatch",
            "failed: No ED25519 host key is known for git.example.com and you have requested strict checking.; "
            "compare the server's host key",
            id="a host that the Secret does not know",
        ),
        pytest.param(
            "", "GitFailed", "failed with exit code 128: Could not read from remote", id="ssh says nothing"
        ),
    ],
)
def test_ssh_says_itself_why_it_ended(ssh, reason, words):
    error = failure("asking for refs", Completed(128, b"", f"{ssh}{GIT}"))
    assert error.reason == reason
    assert words in error.message

"""Short commands: what they wrote, and errors that name the command, the status and the package."""

from pathlib import Path

import pytest

from labkit.errors import CommandError, LabError, UnsupportedError
from labkit.kernel import commands


def test_a_command_gives_back_what_it_wrote_and_its_status() -> None:
    done = commands.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.argv[0] == "sh"
    assert done.seconds > 0


def test_a_status_other_than_0_is_an_error_with_the_last_lines_of_standard_error() -> None:
    with pytest.raises(CommandError) as caught:
        commands.run(["sh", "-c", "echo no such thing >&2; exit 4"])
    assert caught.value.status == 4
    assert "exit status 4: no such thing" in str(caught.value)


def test_a_signal_is_a_negative_status() -> None:
    assert commands.run(["sh", "-c", "kill -TERM $$"], check=False).status == -15


def test_a_tool_that_is_not_installed_is_refused_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedError, match="apt-get install iproute2"):
        commands.run(["ip", "link"])


def test_a_script_whose_interpreter_is_missing_is_not_called_missing_itself(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(LabError, match="interpreter"):
        commands.run([script])


def test_a_command_that_takes_too_long_is_killed_and_says_so() -> None:
    with pytest.raises(CommandError, match=r"still ran after 0\.2 s"):
        commands.run(["sleep", "60"], timeout=0.2)


def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nowhere is not there"):
        commands.run(["true"], cwd=tmp_path / "nowhere")


def test_without_input_a_command_reads_the_end_of_file_at_once() -> None:
    assert commands.run(["cat"], timeout=5).stdout == ""
    assert commands.run(["cat"], input="hello").stdout == "hello"

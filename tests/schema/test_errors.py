from stillwatch.schema import FormatError, MissingExtraError, StillwatchError, Where


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = FormatError("the file is truncated", where=Where("a.parquet", 7, "ts"), hint="copy it again")
    assert str(error) == "a.parquet, row 7, column 'ts': the file is truncated\n  copy it again"
    assert isinstance(error, StillwatchError)
    assert error.exit_code == 3


def test_a_missing_extra_names_its_install_line() -> None:
    assert "pip install 'stillwatch[arena]'" in str(
        MissingExtraError("scikit-learn", "arena", needed_for="the leak check")
    )

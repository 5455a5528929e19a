from manypaths.report.layout import flat


def test_settings_become_dotted_names():
    value = {"a": {"b": 1, "c": None}, "d": [1, 2], "e": "x"}
    assert flat("settings", value) == [("settings.a.b", "1"), ("settings.d", "1, 2"), ("settings.e", "x")]
    assert flat("", value)[0] == ("a.b", "1")

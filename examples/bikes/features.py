"""What the model looks at, and how a table becomes numbers."""

from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OrdinalEncoder

WEATHER = ["clear", "cloudy/misty", "light rain/snow", "heavy rain/snow"]

NUMBERS = [
    "hr",
    "weekday",
    "workingday",
    "temp",
    "hum",
    "windspeed",
]


def features():
    """Turn the columns into numbers; columns that are not named here are ignored."""
    weather = OrdinalEncoder(categories=[WEATHER], handle_unknown="use_encoded_value", unknown_value=-1)
    return make_column_transformer((weather, ["weathersit"]), ("passthrough", NUMBERS))

"""What the model looks at, and how a table becomes numbers."""

from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = [
    "credit_amount",
    "duration",
    "job",
]

CATEGORIES = [
    "housing",
    "saving_accounts",
    "checking_account",
    "purpose",
]


def features():
    """Turn the columns into numbers; columns that are not named here are ignored."""
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
        (StandardScaler(), NUMBERS),
    )

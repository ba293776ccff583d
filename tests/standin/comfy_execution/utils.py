"""No server runs a node here."""


def get_executing_context():
    return None

"""Input: its values are the caller's, through a net, and tested in tests/nets."""

MISTAKES = [
    (
        'type: "Input" top: "a" top: "b" top: "c" input_param { shape { dim: 1 } shape { dim: 2 } }',
        [],
        "input_param gives 2 shapes for 3 tops",
    ),
]

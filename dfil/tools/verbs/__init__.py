"""What the verbs of the command line do; dfil/cli.py says what can be typed."""

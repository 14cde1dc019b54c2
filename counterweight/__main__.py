"""`python -m counterweight` is the command `counterweight`."""

from counterweight.cli import main

main(prog_name="counterweight")

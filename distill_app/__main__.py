"""python -m distill_app"""

from distill_app.cli import main

main()

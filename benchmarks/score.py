"""Processor time of `qfitlatent score`, by this version and an earlier one, and with length.

python benchmarks/score.py [STRUCTURE ...] --against 760b04c [--model RUN]
python benchmarks/score.py --copies 1 10 50 200
"""

from versions import compare, parser_of

if __name__ == "__main__":
    compare("score", "scores.parquet", parser_of(__doc__).parse_args())

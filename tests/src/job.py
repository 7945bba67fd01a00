"""Estimates pi on a Spark cluster, in rounds, until the file named on the command line appears."""

import os
import random
import sys
import time

from pyspark.sql import SparkSession

POINTS = 20_000


def hits(seed):
    """Points of one partition inside the quarter circle, and which executor's directory they were computed in."""
    dice = random.Random(seed)
    inside = sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(POINTS))
    return inside, os.getcwd()


def main():
    spark = SparkSession.builder.appName("netfw-pi").getOrCreate()
    rounds, inside, places = 0, 0, set()
    while len(places) < 4 or not os.path.exists(sys.argv[1]):
        seeds = range(rounds * 8, rounds * 8 + 8)
        for found, place in spark.sparkContext.parallelize(seeds, 8).map(hits).collect():
            inside += found
            places.add(place)
        rounds += 1
        print(f"round {rounds} computed on {len(places)} executors", flush=True)
        time.sleep(0.2)
    print(f"Pi is roughly {4 * inside / (rounds * 8 * POINTS):.4f}", flush=True)
    spark.stop()


main()

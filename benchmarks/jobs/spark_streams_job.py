"""The two questions of benchmarks/streams.py with Spark structured streaming, as its documentation writes them.

`spark_streams_job.py BOOTSTRAP TOPIC FOLDER IVY CORES QUESTION`, in Spark's environment. Prints the seconds of the
second of two equal runs of one session as JSON: the first warms the JVM.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

PACKAGES = "io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"
SCHEMA = "op string, source struct<ts_ms:bigint>, after struct<store:int,quantity:int>"


def main() -> None:
    bootstrap, topic, folder, ivy, cores, question = sys.argv[1:]
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.jars.packages", PACKAGES)
        .config("spark.jars.ivy", ivy)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.shuffle.partitions", cores)
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    seconds = [_run(spark, bootstrap, topic, f"{folder}/{turn}", question) for turn in ("cold", "warm")]
    rows = spark.read.format("delta").load(f"{folder}/warm/table").count()
    print(json.dumps({"rows": rows, "seconds": seconds[1]}))
    spark.stop()


def _run(spark: SparkSession, bootstrap: str, topic: str, folder: str, question: str) -> float:
    begun = time.monotonic()
    events: Any = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
        .select(f.from_json(f.col("value").cast("string"), SCHEMA).alias("e"))
        .where("e.op = 'u'")
        .select(f.timestamp_millis("e.source.ts_ms").alias("at"), "e.after.*")
    )
    if question == "windows":
        found = (
            events.withWatermark("at", "0 seconds")
            .groupBy(f.window("at", "1 second"), "store")
            .agg(f.count("*").alias("orders"), f.sum("quantity").alias("pieces"))
        )
    else:
        dimension = spark.createDataFrame([(s, f"region {s % 7}") for s in range(400)], ["store", "region"])
        found = events.where("quantity >= 40").join(f.broadcast(dimension), "store")
    query = (
        found.writeStream.format("delta")
        .outputMode("append")
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start(f"{folder}/table")
    )
    query.awaitTermination()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()

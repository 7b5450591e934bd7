/** Below this share of the mean a deviation is not believed: a few equal samples do not prove a steady machine. */
const LEAST_DEVIATION = 0.1;
/** What is assumed of the spread after a single sample. */
const FIRST_DEVIATION = 0.25;
/** Weight of a new sample: the last ten or so decide. */
const WEIGHT = 0.15;
/** Deviations above the mean from which a sample is an outlier. */
const OUTLIER_DEVIATIONS = 3;

/**
 * Running mean and deviation of a duration. A single outlier is clipped, because one spike must not add latency for the
 * seconds after it; with a second one in a row everything begins anew, because then the machine has become slower.
 */
export class Estimate {
	#mean = 0;
	#variance = 0;
	#count = 0;
	#lastWasOutlier = false;

	get count(): number {
		return this.#count;
	}

	get meanMs(): number {
		return this.#mean;
	}

	get deviationMs(): number {
		return Math.max(Math.sqrt(this.#variance), LEAST_DEVIATION * this.#mean);
	}

	add(sampleMs: number): void {
		this.#count += 1;
		if (this.#count === 1) {
			this.#begin(sampleMs);
			return;
		}
		const limit = this.#mean + OUTLIER_DEVIATIONS * this.deviationMs;
		const isOutlier = sampleMs > limit;
		if (isOutlier && this.#lastWasOutlier) {
			this.#begin(sampleMs);
			this.#lastWasOutlier = false;
			return;
		}
		this.#lastWasOutlier = isOutlier;
		const believed = Math.min(sampleMs, limit);
		// Exponentially weighted mean and variance (West 1979, incremental form).
		const difference = believed - this.#mean;
		this.#mean += WEIGHT * difference;
		this.#variance = (1 - WEIGHT) * (this.#variance + WEIGHT * difference ** 2);
	}

	#begin(sampleMs: number): void {
		this.#mean = sampleMs;
		this.#variance = (FIRST_DEVIATION * sampleMs) ** 2;
	}
}

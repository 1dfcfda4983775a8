// Package plant is a physical simulator of fleets of inference boxes in shops,
// offices and workshops, for scoring health analytics against a known truth.
//
// A Fleet has sites (weather, room, cooling, dust) and boxes, each one of a
// few SKUs. A Row is one hour, or one minute, as the product would read it; a
// Truth says what was really wrong and since when; an Event is one line of the
// operators' log, which is noisy. A Family fixes the ranges that all of it is
// drawn from: dev0 to dev2 are for tuning, held0 to held11 lie outside them in
// parameters and in structure and are for scoring only.
//
// The model: a fan obeys the affinity laws, dp = s² dpMax f(Q/(s Qmax)), and
// works where that meets a·Q + b·Q² (Darcy through the filter, Bernoulli
// through the chassis; Idelchik, Handbook of Hydraulic Resistance). Die over
// inlet is P(Rjc + Rtim) + P/(hA) + share·dTair, with hA ∝ Q^n, n from 0.5
// (laminar fins) to 0.8 (Dittus and Boelter), natural convection ∝ dT^¼
// beside it (McAdams), and dTair = P/(ρ c Q). Leakage grows with temperature.
// Filters load as Δp ∝ x^2.4, the median of 53 runs with ISO 12103-1 dust;
// families also use an exponential, a cake with a knee and a saturating law.
// Fins foul asymptotically (Kern and Seaton 1959); paste saturates likewise.
//
// Hours are settled at four load points each; minutes integrate die and heat
// sink as two nodes under a stepping fan controller and throttle.
//
// Everything is a pure function of Options: noise is a hash of place and time
// (SplitMix64), so one fault more changes no weather and no load. The package
// keeps no files and imports nothing of ours. The rule a caller can break: a
// detector, or its author, must not look in here.
package plant

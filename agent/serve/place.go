package serve

// servedHere is a box's own answer, by a worker or by a program of its own.
const servedHere = "local"

// headerServedBy tells where an answer was computed, where that may be in
// doubt: models with a backend or a route.
const headerServedBy = "Edgeherd-Served-By"

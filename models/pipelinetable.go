package models

var imageStages = []StageSpec{
	{Name: "crop", Takes: []Kind{KindImage}, Doc: "Keeps a part of the picture.", Params: []ParamSpec{
		{Name: "x", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 1, Unit: "share of the width", Doc: "Left edge."},
		{Name: "y", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 1, Unit: "share of the height", Doc: "Upper edge."},
		{Name: "width", Kind: ParamNumber, Default: 1.0, Min: 0.001, Max: 1, Unit: "share of the width", Doc: "What is kept of it; cut at the picture's edge."},
		{Name: "height", Kind: ParamNumber, Default: 1.0, Min: 0.001, Max: 1, Unit: "share of the height", Doc: "What is kept of it; cut at the picture's edge."},
	}},
	{Name: "resize", Takes: []Kind{KindImage}, Doc: "Scales the picture. With width and height it is stretched to just that; with one of them the other follows the picture's shape; with longest it shrinks until its longer side fits, and is never enlarged.", Params: []ParamSpec{
		side("width", "Width to reach."),
		side("height", "Height to reach."),
		side("longest", "Longer side to reach, instead of width and height."),
		{Name: "multiple", Kind: ParamWhole, Default: 1.0, Min: 1, Max: 256, Unit: "pixels", Doc: "With longest: both sides are rounded to multiples of this."},
		side("max_width", "Bound on a width that follows the shape."),
		side("max_height", "Bound on a height that follows the shape."),
		paramFilter,
	}},
	{Name: "letterbox", Takes: []Kind{KindImage}, Doc: "Scales the picture into width × height and keeps its shape; bars fill the rest.", Params: []ParamSpec{
		required(side("width", "Width of the whole.")),
		required(side("height", "Height of the whole.")),
		{Name: "value", Kind: ParamNumber, Default: 114.0, Min: 0, Max: 255, Doc: "Brightness of the bars, in all colours."},
		{Name: "align", Kind: ParamText, Default: "centre", Choices: []string{"centre", "corner"}, Doc: "Where the picture lies: amid the bars or in the upper left corner."},
		paramFilter,
	}},
	{Name: "pad", Takes: []Kind{KindImage}, Doc: "Makes a narrow or low picture as large as asked, at its right and lower edge. A larger picture stays.", Params: []ParamSpec{
		side("width", "Least width."),
		side("height", "Least height."),
		{Name: "value", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 255, Doc: "Brightness of what is added, before it is normalised."},
	}},
	{Name: "tensor", Takes: []Kind{KindImage}, Gives: KindInputs, Doc: "Makes the model's input: each value v of a pixel (0 to 255) becomes (v / scale − mean) / std.", Params: []ParamSpec{
		{Name: "input", Kind: ParamInput, Doc: "Which input; may be left out when there is one."},
		{Name: "order", Kind: ParamText, Default: "rgb", Choices: []string{"rgb", "bgr", "grey"}, Doc: "Order of the colours."},
		{Name: "layout", Kind: ParamText, Default: "nchw", Choices: []string{"nchw", "nhwc"}, Doc: "Whether planes or pixels follow one another."},
		{Name: "dtype", Kind: ParamText, Choices: []string{"FP32", "FP16", "UINT8", "INT8"}, Doc: "Type of the numbers; default: the input's. Whole numbers are rounded and cut at their range."},
		{Name: "scale", Kind: ParamNumber, Default: 255.0, Min: 1e-6, Max: 1e6, Doc: "Divisor of all values; 1 leaves 0 to 255."},
		{Name: "mean", Kind: ParamNumbers, Default: 0.0, Min: -1e6, Max: 1e6, Doc: "One for all colours, or one each in the order of the colours."},
		{Name: "std", Kind: ParamNumbers, Default: 1.0, Min: 1e-6, Max: 1e6, Doc: "As mean."},
	}},
	{Name: "call", Takes: []Kind{KindImage}, Doc: "Calls the first pipeline of another model with the picture, as it was captured or cropped.", Params: []ParamSpec{
		paramModel,
		{Name: "gives", Kind: ParamText, Required: true, Choices: []string{"boxes", "classes", "text"}, Doc: "What that pipeline ends with; checked when both models serve."},
	}},
}

var tensorStages = []StageSpec{
	{Name: "constant", Takes: []Kind{KindInputs, KindWindows}, Doc: "Sets another input of the model, the same for every call.", Params: []ParamSpec{
		{Name: "input", Kind: ParamInput, Required: true, Doc: "Which input. Free dimensions are 1."},
		{Name: "values", Kind: ParamNumbers, Required: true, Min: -1e15, Max: 1e15, Doc: "One for all elements, or one each."},
	}},
	{Name: "run", Takes: []Kind{KindInputs, KindWindows}, Doc: "Runs the model: inputs become outputs, windows a series of outputs."},
	{Name: "softmax", Takes: []Kind{KindOutputs}, Doc: "Turns an output into shares that sum to 1 along its last dimension.", Params: []ParamSpec{output(soleOutput)}},
	{Name: "sigmoid", Takes: []Kind{KindOutputs}, Doc: "Turns each number v of an output into 1 / (1 + e^−v).", Params: []ParamSpec{output(soleOutput)}},
}

var readStages = []StageSpec{
	{Name: "top_k", Takes: []Kind{KindOutputs}, Gives: KindClasses, Doc: "The best classes of an output [1 classes].", Params: []ParamSpec{
		output(soleOutput),
		{Name: "count", Kind: ParamWhole, Default: 1.0, Min: 1, Max: 100, Unit: "classes", Doc: "How many."},
		{Name: "min_score", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 1, Doc: "What scores less is dropped."},
		paramLabels, paramLabelsFile,
	}},
	{Name: "threshold", Takes: []Kind{KindOutputs}, Gives: KindClasses, Doc: "All classes of an output [1 classes] from a score on: for models that may see several or none.", Params: []ParamSpec{
		output(soleOutput),
		{Name: "above", Kind: ParamNumber, Required: true, Min: 0, Max: 1, Doc: "Least score."},
		paramLabels, paramLabelsFile,
	}},
	{Name: "argmax", Takes: []Kind{KindOutputs}, Gives: KindClasses, Doc: "The best class at every place of an output [1 classes …]; a class scores the share of places where it is best. For segmentation.", Params: []ParamSpec{
		output(soleOutput), paramLabels, paramLabelsFile,
	}},
	{Name: "ctc", Takes: []Kind{KindOutputs}, Gives: KindText, Doc: "Greedy reading of an output [1 steps classes]: the best class of each step, repeats and blanks dropped.", Params: []ParamSpec{
		output(soleOutput),
		{Name: "charset", Kind: ParamFile, Required: true, Doc: "Characters, a line each, in the order of the classes."},
		{Name: "blank", Kind: ParamText, Default: "first", Choices: []string{"first", "last"}, Doc: "Which class says nothing."},
		{Name: "space", Kind: ParamFlag, Default: false, Doc: "Whether the class after the file's characters is the space."},
	}},
	{Name: "db_boxes", Takes: []Kind{KindOutputs}, Gives: KindBoxes, Doc: "Rotated boxes around text in a probability map [1 1 height width] (DB, arXiv:1911.08947).", Params: []ParamSpec{
		output(soleOutput),
		{Name: "above", Kind: ParamNumber, Default: 0.3, Min: 0, Max: 1, Doc: "A place above is text."},
		{Name: "min_score", Kind: ParamNumber, Default: 0.6, Min: 0, Max: 1, Doc: "A region whose mean is less is dropped."},
		{Name: "unclip", Kind: ParamNumber, Default: 1.5, Min: 0, Max: 10, Doc: "How far boxes grow: area × this / perimeter on each side."},
		{Name: "min_side", Kind: ParamNumber, Default: 3.0, Min: 1, Max: 1000, Unit: "pixels of the map", Doc: "Smaller regions are dropped."},
		paramMaxBoxes,
	}},
	{Name: "yolo_boxes", Takes: []Kind{KindOutputs}, Gives: KindBoxes, Doc: "Boxes of a YOLO output: centre, width and height in pixels of the input, then scores. Follow it with nms.", Params: []ParamSpec{
		output(soleOutput),
		{Name: "form", Kind: ParamText, Required: true, Choices: []string{"v5", "v8"}, Doc: "v5: [1 boxes 5+classes] with a score for there being an object; v8: [1 4+classes boxes] without."},
		paramMinScore, paramLabels, paramLabelsFile,
	}},
	{Name: "ssd_boxes", Takes: []Kind{KindOutputs}, Gives: KindBoxes, Doc: "Boxes as offsets from anchors: SSD and the MediaPipe detectors. Scores are [1 anchors classes], boxes [1 anchors 4 or more]; several pairs of outputs are read one after the other. Follow it with nms.", Params: []ParamSpec{
		{Name: "scores", Kind: ParamOutputs, Required: true, Doc: "Outputs with scores."},
		{Name: "boxes", Kind: ParamOutputs, Required: true, Doc: "Outputs with boxes, as many as scores."},
		{Name: "grid", Kind: ParamNumbers, Min: 1, Max: 1024, Unit: "cells a side", Doc: "Anchors are the centres of a grid, one grid for each output."},
		{Name: "per_cell", Kind: ParamNumbers, Min: 1, Max: 64, Unit: "anchors", Doc: "Anchors of each cell, one for each grid."},
		{Name: "anchors_file", Kind: ParamFile, Doc: "Instead of a grid: JSON, a list of [centre x, centre y, width, height] as shares of the picture."},
		{Name: "coding", Kind: ParamText, Default: "linear", Choices: []string{"linear", "exp"}, Doc: "linear: x, y, width, height are divided by scale. exp: SSD's, offsets times variance times the anchor's size, sizes through e^x."},
		{Name: "scale", Kind: ParamNumber, Default: 1.0, Min: 1e-6, Max: 1e6, Doc: "With linear: the divisor, mostly the input's width."},
		{Name: "variance", Kind: ParamNumbers, Default: []float64{0.1, 0.2}, Min: 1e-6, Max: 1e3, Doc: "With exp: of places and of sizes."},
		{Name: "sigmoid", Kind: ParamFlag, Default: false, Doc: "Whether scores still need it."},
		{Name: "background", Kind: ParamFlag, Default: false, Doc: "Whether class 0 is the background; labels start after it."},
		paramMinScore, paramLabels, paramLabelsFile,
	}},
}

var boxStages = []StageSpec{
	{Name: "nms", Takes: []Kind{KindBoxes}, Doc: "Of boxes that overlap, keeps the best.", Params: []ParamSpec{
		{Name: "iou", Kind: ParamNumber, Default: 0.45, Min: 0, Max: 1, Unit: "shared area / joint area", Doc: "More than this is an overlap."},
		{Name: "per_class", Kind: ParamFlag, Default: true, Doc: "Whether only boxes of one class compete."},
		{Name: "method", Kind: ParamText, Default: "best", Choices: []string{"best", "blend"}, Doc: "blend: the survivor is the mean of all it beat, weighted by score (MediaPipe)."},
		paramMaxBoxes,
	}},
	{Name: "filter", Takes: []Kind{KindBoxes}, Doc: "Drops boxes.", Params: []ParamSpec{
		{Name: "labels", Kind: ParamTexts, Doc: "Only these classes stay."},
		{Name: "min_score", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 1, Doc: "What scores less is dropped."},
		{Name: "min_side", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 8192, Unit: "pixels of the frame", Doc: "Boxes with a shorter side are dropped."},
		paramMaxBoxes,
	}},
	{Name: "turn", Takes: []Kind{KindBoxes}, Doc: "Shows each box to a model and turns those around that are upside down. Where it is not sure, the majority of the sure ones decides.", Params: []ParamSpec{
		paramModel,
		{Name: "upright", Kind: ParamText, Required: true, Doc: "Label of the class that says upright."},
		{Name: "flipped", Kind: ParamText, Required: true, Doc: "Label of the class that says upside down."},
		{Name: "sure", Kind: ParamNumber, Default: 0.9, Min: 0, Max: 1, Doc: "More than this is sure."},
	}},
	{Name: "each", Takes: []Kind{KindBoxes}, Doc: "Shows each box to a model that reads text or classes; that becomes the box's text.", Params: []ParamSpec{
		paramModel,
		{Name: "grow", Kind: ParamNumber, Default: 0.0, Min: 0, Max: 4, Unit: "share of the shorter side", Doc: "How much is added on each side first."},
	}},
	{Name: "lines", Takes: []Kind{KindBoxes}, Gives: KindText, Doc: "Puts the texts of boxes into lines as on the page, which may be tilted or upside down.", Params: []ParamSpec{
		{Name: "min_score", Kind: ParamNumber, Default: 0.5, Min: 0, Max: 1, Doc: "Texts that score less are dropped."},
	}},
}

var audioStages = []StageSpec{
	{Name: "windows", Takes: []Kind{KindAudio}, Gives: KindWindows, Doc: "Cuts the clip into windows, input [1 context+size]. What lies outside of the clip is silence.", Params: []ParamSpec{
		{Name: "input", Kind: ParamInput, Required: true, Doc: "Which input."},
		{Name: "rate", Kind: ParamWhole, Default: 16000.0, Min: 16000, Max: 16000, Unit: "hertz", Doc: "Sample rate that the model needs."},
		{Name: "size", Kind: ParamWhole, Required: true, Min: 16, Max: 1 << 20, Unit: "samples", Doc: "New samples of a window."},
		{Name: "hop", Kind: ParamWhole, Min: 16, Max: 1 << 20, Unit: "samples", Doc: "From the start of one window to the next; default: size."},
		{Name: "context", Kind: ParamWhole, Default: 0.0, Min: 0, Max: 1 << 20, Unit: "samples", Doc: "Samples of before that each window begins with."},
	}},
	{Name: "carry", Takes: []Kind{KindWindows}, Doc: "Hands an output of one window to the next as an input; the first gets zeros.", Params: []ParamSpec{
		{Name: "input", Kind: ParamInput, Required: true, Doc: "Which input. Free dimensions are 1."},
		{Name: "output", Kind: ParamOutput, Required: true, Doc: "Which output; of the same type and shape."},
	}},
	{Name: "segments", Takes: []Kind{KindSeries}, Gives: KindSegments, Doc: "Stretches of a clip in which an output with one number a window is high.", Params: []ParamSpec{
		output(soleOutput),
		{Name: "label", Kind: ParamText, Required: true, Doc: "What is heard, such as speech."},
		{Name: "start", Kind: ParamNumber, Default: 0.5, Min: 0, Max: 1, Doc: "A stretch starts from here on."},
		{Name: "end", Kind: ParamNumber, Default: 0.35, Min: 0, Max: 1, Doc: "It ends after windows below."},
		{Name: "min_length", Kind: ParamWhole, Default: 250.0, Min: 0, Max: 60000, Unit: "ms", Doc: "Shorter stretches are dropped."},
		{Name: "min_silence", Kind: ParamWhole, Default: 100.0, Min: 0, Max: 60000, Unit: "ms", Doc: "A shorter pause does not end a stretch."},
		{Name: "padding", Kind: ParamWhole, Default: 30.0, Min: 0, Max: 60000, Unit: "ms", Doc: "Added at both ends."},
	}},
}

func required(p ParamSpec) ParamSpec {
	p.Required = true
	return p
}
